"""How fast the monitor is: intake, readers, from a program to a reader, and restart."""
