"""The alert rules, held against a model of runs by promtool."""
