"""`describe`: reads `images` and `boxes`, writes histograms of box shapes, findings and figures."""
