"""Terms that align latents with what other models know of the samples; one file per kind."""
