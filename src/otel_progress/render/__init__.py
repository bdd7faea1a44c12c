"""Turns snapshots into words, bars and trees for a terminal."""
