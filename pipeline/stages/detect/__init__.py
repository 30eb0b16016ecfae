"""Detect buildings, windows and doors in an archive of photos; what was done before is not done again.

Reads photos and a model bundle; writes the tables `photos` and `detections`.
"""
