"""From the value of ``data.train`` to batches, and from images to shards. No Lightning.

The docstring of each folder here says what it promises to those that import it.
"""
