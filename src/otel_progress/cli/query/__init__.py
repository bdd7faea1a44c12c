"""Commands that ask a monitor: watch, list, show, cancel."""
