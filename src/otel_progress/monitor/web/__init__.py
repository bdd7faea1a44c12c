"""The HTTP API, its streams, and the page."""
