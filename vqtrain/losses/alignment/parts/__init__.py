"""What several alignments share."""
