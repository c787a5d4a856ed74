"""What ``vqtrain probe`` consists of."""
