"""Attacks: tokens, and what they must not reach."""
