"""`vqtrain pack`: images of any kind become WebDataset shards."""
