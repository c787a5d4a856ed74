"""From files to batches, in an order that is a function of the seed and the position."""
