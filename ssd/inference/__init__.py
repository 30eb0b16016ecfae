"""Photos to detections: a detector, tiles for small objects, and a stream that overlaps reading and computing."""
