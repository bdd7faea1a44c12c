"""The one thread that looks: it reads what the handles put down, judges, and tells."""
