"""Grids of runs, and the tables and pictures of what came of them."""
