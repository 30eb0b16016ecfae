"""Count boxes: shapes, sizes, objects an image, what looks wrong; with figures.

Reads `images` and `boxes`; writes `box_histograms`, `findings` and figures.
"""
