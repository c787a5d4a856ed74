"""Python files that run a tokenizer with torch alone, made of vqtrain's own sources."""
