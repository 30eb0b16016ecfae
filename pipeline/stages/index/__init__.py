"""List a dataset: pair photos and annotations, hash, check and split them.

Reads a dataset card and its folder; writes the table `images`.
"""
