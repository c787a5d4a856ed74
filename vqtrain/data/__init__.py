"""From what is written after ``data.train`` to batches, and from images to shards. No Lightning.

Each folder here promises something to the ones that import it; its docstring says what.
"""
