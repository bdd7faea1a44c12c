"""Attacks: secrets planted in everything that leaves."""
