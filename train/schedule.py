"""Schedules, each a pure function of the step: official MoCo v3's, per iteration."""

import math


def learning_rate(step: int, steps: int, warmup_steps: float, peak: float) -> float:
    """Return the learning rate: linear from 0 to the peak, then half a cosine to 0.

    Source: moco-v3, main_moco.py, adjust_learning_rate. The first step's rate is 0.

    Args:
        step: from 0.
        steps: of the whole run.
        warmup_steps: until the peak.
        peak: base rate * global batch / 256.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps)))


def momentum(step: int, steps: int, start: float) -> float:
    """Return the teacher's momentum: half a cosine from `start` to 1.

    Source: moco-v3, main_moco.py, adjust_moco_momentum.
    """
    return 1 - 0.5 * (1 + math.cos(math.pi * step / steps)) * (1 - start)
