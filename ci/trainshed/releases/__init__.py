"""Releases: what the next version is and why, what a release will do, its manifest and its notes. Pure."""
