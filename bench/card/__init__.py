"""The parts of bench/gpu.py: what a card is asked."""
