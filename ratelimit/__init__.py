"""Use an OpenAI-compatible API at exactly the speed your usage tier allows."""

__version__ = "0.1.0"
