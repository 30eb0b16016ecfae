"""Datasets as they are found: cards, pairing of photos and annotations, readers of annotations, synthetic data."""
