"""The batch program of facade-ssd: stages, tables and the command line.

Start reading at `cli/main.py`, then one stage (`stages/index/stage.py`), then what it calls: `execution` runs the
stage's shards in worker processes, and `storage` keeps the tables that come back.
"""

__version__ = "0.2.0"
