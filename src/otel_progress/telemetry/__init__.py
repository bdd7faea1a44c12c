"""The only importers of the OpenTelemetry API and SDK."""
