"""Attacks: the command with odd arguments and streams."""
