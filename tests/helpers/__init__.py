"""What several tests need, by noun."""
