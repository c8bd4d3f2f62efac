"""Who goes next, and when."""
