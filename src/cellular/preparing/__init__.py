"""Annotations become label maps and flows."""
