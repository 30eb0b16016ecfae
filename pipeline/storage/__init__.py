"""Files and tables on disk: atomic writes, locks, schemas, stage folders and their manifests."""
