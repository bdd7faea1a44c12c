"""Tests against real programs, run as users run them; no fakes."""
