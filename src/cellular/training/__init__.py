"""Prepared fields become weights."""
