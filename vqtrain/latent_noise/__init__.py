"""Noise on the latents that a decoder gets in training; one file per kind."""
