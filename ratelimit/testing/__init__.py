"""Tools to test your own code with: a virtual clock and a mock server."""
