"""Counter-based random numbers: functions of (seed, step), so ranks and resumed runs agree.

Who wants them for some places of the global batch draws them for all, in order, and takes its own.
"""

import numpy as np

AUGMENT, STAIN, MASK, KEEP = range(4)  # streams, that none takes another's numbers


def generator_for(
    seed: int, step: int, view: int = 0, stream: int = AUGMENT
) -> np.random.Generator:
    """Return the random numbers of a stream, for a view of a step; no two overlap."""
    key, counter = [seed, step * 2 + view % 2], [0, 0, view // 2, stream]
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
