"""Attacks: receivers that hold or harm a sender."""
