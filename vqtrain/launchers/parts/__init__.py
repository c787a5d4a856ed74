"""Code that launchers share."""
