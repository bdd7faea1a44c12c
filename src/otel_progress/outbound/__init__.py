"""Sends to one receiver: OTLP requests and webhooks, with retries and a queue."""
