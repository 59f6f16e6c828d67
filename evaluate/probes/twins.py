"""Rows that are one nucleus: together in every fold."""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def expand(tests: list[np.ndarray], twins: np.ndarray, first: np.ndarray) -> list[np.ndarray]:
    """Return folds of all rows of folds of the first row of each nucleus.

    Args:
        tests: rows of `first`, (M,) int each.
        twins: (N,) int, the same for rows of one nucleus.
        first: (K,) rows, one a nucleus.
    """
    return [np.flatnonzero(np.isin(twins, twins[first[test]])) for test in tests]


def joined(groups: np.ndarray, twins: np.ndarray) -> np.ndarray:
    """Return (N,) int groups in which groups that share a nucleus are one."""
    group, twin = (np.unique(words, return_inverse=True)[1] for words in (groups, twins))
    size = group.max() + twin.max() + 2
    links = coo_array((np.ones(len(group)), (group, group.max() + 1 + twin)), shape=(size, size))
    return connected_components(links, directed=False)[1][group]
