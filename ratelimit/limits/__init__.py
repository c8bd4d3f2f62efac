"""What is allowed: pure code over numbers, with time as an argument."""
