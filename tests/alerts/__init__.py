"""The alert rules, compared with a model of runs by promtool."""
