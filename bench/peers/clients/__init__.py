"""One module per peer, run in its environment: standard library and that peer only."""
