"""What operations cost at the receiver: events, spans, series, bytes, and a bill."""
