"""Formats of others: tokenizers are exported to them and converted from them, one file each."""
