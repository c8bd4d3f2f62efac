"""A job through the Batch API: half the price, limits of its own, the same files."""
