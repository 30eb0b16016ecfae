"""Train a detector on the boxes and keep the best epoch as a bundle; on a GPU where there is one.

Reads `images`, `boxes` and `priors.json`; writes a model bundle.
"""
