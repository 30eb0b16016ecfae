"""`report`: reads the tables of all other stages, writes one HTML page."""
