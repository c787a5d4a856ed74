"""How good a tokenizer is, in numbers and in images."""
