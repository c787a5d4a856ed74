"""`vqtrain pack`: images of any kind become WebDataset shards.

Promises the same bytes for the same images and settings, with any number of processes.
"""
