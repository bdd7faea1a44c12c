"""Tests against real parts: no fakes, only programs as users run them."""
