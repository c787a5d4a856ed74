"""What codebooks share."""
