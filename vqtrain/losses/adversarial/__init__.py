"""Losses of adversarial training; one file per kind."""
