"""Attacks: the job's own errors."""
