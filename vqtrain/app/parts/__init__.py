"""What commands share: configs, keys, and what a run is built of."""
