"""Networks that distinguish reconstructions from samples; one file per kind."""
