"""Losses of adversarial training; one file a kind."""
