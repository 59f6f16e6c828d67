"""Weights of a file or of the hub, put into a module without a tensor too many or too few."""

import hashlib
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn


def read_state(path: Path) -> dict:
    """Read tensors and plain Python of a file; nothing else is unpickled.

    Args:
        path: `.safetensors`, or what torch.save wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it cannot be read, or holds more than tensors and plain Python.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # A zip can be mapped, so that a giant is not in memory twice; torch < 1.6 wrote none.
        mapped = zipfile.is_zipfile(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UnpicklingError as error:
        first = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is no file of tensors and plain Python, and what else it may hold is not "
            f"executed: {first}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}") from error


def fit(module: nn.Module, state: dict[str, Tensor], source: str) -> nn.Module:
    """Put weights into a module, which may be on the meta device, and return it in eval mode.

    Args:
        module: with the state's names and shapes.
        state: taken as it is where float32, else converted.
        source: where it is from, for the error.

    Raises:
        ValueError: a tensor is absent, foreign, or of another shape.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    differences = [
        ("missing", sorted(expected.keys() - found.keys())),
        ("not the architecture's", sorted(found.keys() - expected.keys())),
        ("of another shape", [k for k in expected if found.get(k, expected[k]) != expected[k]]),
    ]
    if any(names for _, names in differences):
        said = "; ".join(
            f"{len(names)} {kind}, first {names[0]} "
            f"(expected {expected.get(names[0], 'none')}, found {found.get(names[0], 'none')})"
            for kind, names in differences
            if names
        )
        raise ValueError(f"{source} does not fit: of {len(expected)} tensors {said}")
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


def fetch(repository: str, file: str, kind: str) -> Path:
    """Return a file of the Hugging Face hub, downloaded once.

    Args:
        repository: owner/name.
        file: in it.
        kind: of encoder, for the error.

    Raises:
        FileNotFoundError: it is not in the cache, and the hub is not reached or refuses.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    page = f"https://huggingface.co/{repository}"
    try:
        return Path(hf_hub_download(repository, file))
    except GatedRepoError as error:
        raise FileNotFoundError(
            f"{kind}: {page} gives its weights to those who accept its terms; do so there and run "
            f"`hf auth login`, or give the file: {kind}:/path/to/{file}"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{kind}: {file} of {page} could not be fetched ({type(error).__name__}); download it "
            f"elsewhere and give the file: {kind}:/path/to/{file}"
        ) from error


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(module: nn.Module) -> str:
    """Return the SHA-256 of a module's tensors, where there is no one file to take it of."""
    total = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
