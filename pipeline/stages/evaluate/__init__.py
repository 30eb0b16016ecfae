"""Evaluate detections: precision with intervals, what goes wrong, thresholds, suspicious labels.

Reads `detections`, `images` and `boxes`; writes scores, an error analysis and the operating point.
"""
