"""The tokenizer, and its files."""
