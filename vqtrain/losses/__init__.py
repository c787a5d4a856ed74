"""Terms of the objective that compare images."""
