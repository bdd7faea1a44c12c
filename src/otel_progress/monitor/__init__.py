"""What runs beside the user's processes and listens to them: the intake, the ledger, the watcher."""
