"""What loss terms share, and how they are weighted over a run."""
