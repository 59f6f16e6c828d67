"""Schedules, each a pure function of the step: official MoCo v3's and DINOv2's, per iteration."""

import math


def learning_rate(
    step: int, steps: int, warmup_steps: float, peak: float, end: float = 0.0
) -> float:
    """Return the learning rate: linear from 0 to the peak, then half a cosine to the end.

    Source: moco-v3, main_moco.py, adjust_learning_rate. The first step's rate is 0.

    Args:
        step: from 0.
        steps: of the whole run.
        warmup_steps: until the peak.
        peak: of the rate.
        end: that the cosine leads to; dinov2's is 1e-6.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    return cosine(step - warmup_steps, steps - warmup_steps, peak, end)


def cosine(step: float, steps: float, start: float, end: float) -> float:
    """Return a value on half a cosine from `start` at step 0 to `end` at step `steps`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * step / steps))


def ramp(step: int, steps: float, start: float, end: float) -> float:
    """Return a value on a line from `start` at step 0 to `end` at step `steps` and after it."""
    return end if step >= steps else start + (end - start) * step / steps


def momentum(step: int, steps: int, start: float) -> float:
    """Return the teacher's momentum: half a cosine from `start` to 1.

    Source: moco-v3, main_moco.py, adjust_moco_momentum.
    """
    return 1 - 0.5 * (1 + math.cos(math.pi * step / steps)) * (1 - start)
