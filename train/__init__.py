"""Cells in, encoder out: self-supervised training under torchrun."""
