"""Tests under stress: real processes, real sockets, endpoints that fail in every way, and kills."""
