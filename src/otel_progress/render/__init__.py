"""Renders snapshots as words, bars and trees for a terminal."""
