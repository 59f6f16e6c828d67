"""Arrays of a MATLAB file."""

import zlib
from pathlib import Path

import numpy as np

from shards.filetype import check_file, describe


def read_mat(
    path: Path, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, np.ndarray]:
    """Read numeric arrays of a .mat file up to version 7.

    Raises:
        ValueError: it does not open, or lacks a name, or holds something else than numbers there.
    """
    import scipy.io
    from scipy.io.matlab import MatReadError

    check_file(path)
    try:
        found = scipy.io.loadmat(path, variable_names=[*needed, *optional])
    except NotImplementedError as error:  # version 7.3, which is HDF5
        raise ValueError(
            f"{path} is a MATLAB file of version 7.3; save it as version 7 (`save -v7`)"
        ) from error
    except (
        MatReadError, ValueError, TypeError, OSError, EOFError, IndexError, KeyError, zlib.error
    ) as error:  # fmt: skip
        raise ValueError(
            f"{path}, {describe(path)}, does not open as a MATLAB file: {error}"
        ) from error
    absent = [name for name in needed if name not in found]
    if absent:
        held = [name for name in found if not name.startswith("__")]
        raise ValueError(
            f"{path}: no {absent[0]!r}; it holds {', '.join(held) or 'none of what is needed'}, "
            f"needed are {', '.join(needed)}"
        )
    arrays = {name: found[name] for name in (*needed, *optional) if name in found}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
            raise ValueError(f"{path}: {name} is {type(array).__name__}, no array of numbers")
    return arrays
