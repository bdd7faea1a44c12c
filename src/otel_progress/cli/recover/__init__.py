"""The command `recover`: what was interrupted or lost, and how to go on."""
