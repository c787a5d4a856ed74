"""Networks that tell reconstructions from images; one file a kind."""
