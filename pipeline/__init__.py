"""The batch program of facade-ssd: stages, tables and the command line.

Read on in this order: `cli`, then one stage (`index`, `extract`), then what that stage calls. A stage decides
everything eagerly, hands shards of rows to `parallel`, and `store` keeps what comes back.
"""

__version__ = "0.2.0"
