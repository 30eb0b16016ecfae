"""Turn annotations into boxes: masks by a recipe, annotated boxes as they are.

Reads `images` and annotation files; writes the table `boxes`.
"""
