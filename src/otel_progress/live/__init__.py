"""What runs inside the user's process: handles, counters, context, registry, ticker."""
