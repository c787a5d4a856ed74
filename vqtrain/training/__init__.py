"""The training run: step, data, checkpoints, and what people see of them."""
