"""Outlets inside the process: the console, and JSON lines."""
