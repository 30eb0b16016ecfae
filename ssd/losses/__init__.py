"""The MultiBox loss, and the matching of priors with ground truths that it needs."""
