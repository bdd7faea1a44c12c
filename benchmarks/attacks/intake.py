"""Attacks: requests that are to exhaust the monitor."""
