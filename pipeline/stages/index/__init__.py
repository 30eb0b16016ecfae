"""`index`: reads a dataset card and its folder, writes the `images` table."""
