"""Training augmentation: a random plan is sampled for each photo, then all plans of a batch are applied at once."""
