"""`train`: reads `images`, `boxes` and `priors.json`, writes a model bundle."""
