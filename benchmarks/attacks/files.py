"""Attacks: the monitor's files, changed under it."""
