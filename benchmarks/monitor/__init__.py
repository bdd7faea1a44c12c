"""Speed of the monitor: intake, readers, latency from a program to a reader, restart."""
