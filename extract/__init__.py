"""Slides in, nuclei out: one folder of cells per cohort."""
