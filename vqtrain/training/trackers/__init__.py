"""Where metrics and images go besides the run directory."""
