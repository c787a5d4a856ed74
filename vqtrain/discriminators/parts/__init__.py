"""Code that discriminators share."""
