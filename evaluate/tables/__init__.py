"""Probe results as tables."""
