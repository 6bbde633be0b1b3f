"""What a user writes, and its resolution into a complete experiment. No torch."""
