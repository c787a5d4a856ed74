"""Small pure functions on tensors: code search, histograms, pixel ranges."""
