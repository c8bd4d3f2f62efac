"""A file of requests in, one result per request out, whatever happens between."""
