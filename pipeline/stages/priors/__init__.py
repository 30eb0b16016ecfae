"""`priors`: reads `images`, `boxes` and histograms, writes prior boxes to `priors.json`."""
