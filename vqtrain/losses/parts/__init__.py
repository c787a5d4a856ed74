"""Code that loss terms share, and their weights over a run."""
