"""Pixels: reading photos, drawing boxes, plotting figures."""
