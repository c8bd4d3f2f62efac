"""Shows a program or a run to whoever looks."""
