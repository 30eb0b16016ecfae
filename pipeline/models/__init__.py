"""Model bundles on disk: reading, importing, exporting, and their operating points."""
