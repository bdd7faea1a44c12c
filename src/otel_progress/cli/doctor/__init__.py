"""The command `doctor`: finds what is wrong with a set-up, and names the fix."""
