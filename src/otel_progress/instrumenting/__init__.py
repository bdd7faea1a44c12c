"""The switchboard of integrations: which are on, and when each is installed (`chosen`, `imports`, `start/`)."""
