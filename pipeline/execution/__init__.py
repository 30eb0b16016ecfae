"""How a stage is executed: shards, worker processes, progress, retries, and the commit of its tables."""
