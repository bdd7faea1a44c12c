"""Values and pure functions; imports nothing of ours but errors and semconv."""
