"""Attacks: numbers of operations that are to exhaust the monitor."""
