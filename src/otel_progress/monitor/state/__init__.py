"""What the monitor knows: one thread owns it, a file keeps it."""
