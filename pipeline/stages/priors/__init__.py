"""Fit prior boxes, compare them with the presets on other photos, and choose.

Reads `images`, `boxes` and `box_histograms`; writes `priors.json`.
"""
