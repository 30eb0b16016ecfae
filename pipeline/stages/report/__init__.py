"""Put all results on one page that needs nothing but itself: WORK/report/index.html.

Reads the tables of all other stages; writes one HTML page.
"""
