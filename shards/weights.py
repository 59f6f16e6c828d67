"""A file of weights: nothing else of it is unpickled, and what is none is called what it is."""

import re
import zipfile
from pathlib import Path

from shards.errors import dead_link
from shards.filetype import check_archive, check_file, describe

WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel, of torch.compile
MAYBE = ("a pickle", "a zip archive", "a file of an unknown kind")  # what weights may look like


def read_state(path: Path) -> dict:
    """Read tensors and plain Python of a file; nothing else is unpickled.

    Args:
        path: safetensors, or what torch.save wrote; recognised by content.

    Returns:
        What the file holds, without the `module.` or `_orig_mod.` that wrappers put before every
        name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no file of weights, is cut short, or holds more than tensors and plain
            Python.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}{dead_link(path)}")
    check_file(path)
    check_archive(path)
    try:
        state = _load(path)
    except OSError:
        raise
    except Exception as error:  # of a stranger's file: whatever its bytes did to the readers
        raise ValueError(f"{path} {_said(path, error)}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds one {type(state).__name__}, no weights by name")
    return unwrapped(state)


def unwrapped(state: dict) -> dict:
    """Return weights without what wrappers put before every name."""
    while state and (wrapper := next((w for w in WRAPPERS if _all(state, w)), "")):
        state = {name.removeprefix(wrapper): tensor for name, tensor in state.items()}
    return state


def _load(path: Path) -> dict:
    import torch
    from safetensors.torch import load_file

    with open(path, "rb") as file:
        head = file.read(9)
    if head[8:] == b"{":  # after the length of its header
        return load_file(path)
    options = {"map_location": "cpu", "weights_only": True}
    # A zip can be mapped, so that a giant is not in memory twice; torch < 1.6 wrote none, and a
    # path that ends so is safetensors to torch.
    if zipfile.is_zipfile(path) and path.suffix != ".safetensors":
        return torch.load(path, mmap=True, **options)
    with open(path, "rb") as file:
        return torch.load(file, **options)


def _said(path: Path, error: Exception) -> str:
    """Say why a file cannot be read; torch's own words would have users unpickle anything."""
    foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
    if foreign or "TorchScript" in str(error):
        what = foreign[1] if foreign else "a TorchScript program"
        return (
            f"holds more than tensors and plain Python ({what}), which is not executed here; ask "
            "its author for the state_dict alone, best as .safetensors"
        )
    kind = describe(path)
    if kind not in MAYBE:
        return f"is no file of weights but {kind}; give safetensors, or what torch.save wrote"
    first = "" if "weights_only" in str(error) else (str(error).splitlines() or [""])[0]
    return (
        f"cannot be read as weights ({type(error).__name__}{': ' * bool(first)}{first}): damaged, "
        "or of another kind"
    )


def _all(state: dict, prefix: str) -> bool:
    """Tell whether every name begins so."""
    return all(isinstance(name, str) and name.startswith(prefix) for name in state)
