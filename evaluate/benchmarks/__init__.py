"""Benchmarks, one file each: from the publishers' files to labelled crops."""
