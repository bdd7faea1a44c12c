"""Reports of one run, or of many runs of a name, as text, JSON, CSV, Markdown and HTML."""
