"""Attacks: public calls where everything fails."""
