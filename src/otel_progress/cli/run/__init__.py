"""The command `run`: starts a command, forwards its telemetry, and closes the operations that it left open."""
