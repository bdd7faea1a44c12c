"""Work that survives its process: checkpoints, leases, and the stores that keep them."""
