"""Remote files: listing, and reading any bytes of them, fetched once and retried after failures.

Promises that a file is the one that was indexed or an error says that it changed, and that an
outage of a few minutes is only a wait.
"""
