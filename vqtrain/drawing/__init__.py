"""Samples as pictures that people look at, and as files that a browser plays."""
