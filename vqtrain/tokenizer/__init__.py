"""The tokenizer, and how it is kept on disk."""
