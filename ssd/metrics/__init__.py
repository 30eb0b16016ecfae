"""VOC and COCO average precision from flat arrays of detections and ground truths."""
