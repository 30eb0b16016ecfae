"""`extract`: reads `images` and annotations, writes the `boxes` table."""
