"""Encoders in; probe tables, maps and a report out."""
