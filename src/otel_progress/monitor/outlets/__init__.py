"""What the monitor passes on: to OTLP receivers, Redis and webhooks."""
