"""`evaluate`: reads `detections`, `images` and `boxes`, writes scores, an error analysis and the operating point."""
