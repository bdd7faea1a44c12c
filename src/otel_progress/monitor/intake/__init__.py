"""Receives OTLP over HTTP and gRPC: admits, bounds and reads requests."""
