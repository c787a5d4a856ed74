"""Terms of the objective that compare reconstructions with samples; one file per kind."""
