"""Put all results on one self-contained page: WORK/report/index.html.

Reads the tables of all other stages; writes one HTML page.
"""
