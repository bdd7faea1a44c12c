"""How fast it is, side by side with its peers: `python -m benchmarks`."""
