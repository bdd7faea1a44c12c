"""Receives the hooks of coding agents, and reports their sessions as operations."""
