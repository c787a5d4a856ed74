"""What several metrics share, and how metrics are built, named and declared."""
