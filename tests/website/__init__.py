"""The site that `make docs` builds, and the reference that it generates."""
