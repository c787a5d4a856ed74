"""How well a model can generate on a tokenizer: probes of its ids, and models over them."""
