"""Metrics: how near reconstructions come to their originals. One module for each kind."""
