"""Integrations, one module a library: what it does becomes operations and stages, with no line in the program.

Each is found by the entry-point group `otel_progress.integrations`, uses the public API alone, and is imported by
nobody but the switchboard (`otel_progress.instrumenting`). docs/integrations.md says how to write one.
"""
