"""`detect`: reads photos and a model bundle, writes the tables `photos` and `detections`."""
