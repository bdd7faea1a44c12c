"""Tests under stress: real processes, real sockets, faulty endpoints, and kills."""
