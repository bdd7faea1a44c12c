"""The command `run`: starts a command, relays its telemetry and reports what it left open."""
