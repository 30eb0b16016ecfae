"""Evaluate detections: precision with intervals, error analysis, thresholds, suspicious labels.

Reads `detections`, `images` and `boxes`; writes scores, an error analysis and the operating point.
"""
