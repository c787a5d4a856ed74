"""Grids of runs, and tables and plots of their results."""
