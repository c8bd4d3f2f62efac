"""Sending: requests and replies, one POST, retries, and the client that puts them behind the gate."""
