"""Weights of a file or of the hub, put into a module without a tensor too many or too few."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor, nn

WRAPPED = re.compile(
    r"(^|\.)(?:(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+"
)
HEAD = re.compile(r"(head|heads|fc|classifier|dino_head|ibot_head|mask_token)(\.|$)")  # not wanted


def fit(module: nn.Module, state: dict[str, Tensor], source: str) -> nn.Module:
    """Put weights into a module, which may be on the meta device, and return it in eval mode.

    Args:
        module: with the state's names and shapes.
        state: taken as it is where float32, else converted. Where the names lie deeper, as in
            `state_dict`, `teacher.backbone.` or below a wrapper's name, and the module's lie there
            once and whole, these are taken.

    Raises:
        ValueError: a tensor is absent, foreign, or of another shape; or several networks in the
            state fit.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    state = _unwrap(_flat(state), expected, source)
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


def _flat(state: dict, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of nested dicts by their dotted names."""
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, Tensor):
            flat[f"{prefix}{name}"] = value
        elif isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
    return flat


def _unwrap(state: dict[str, Tensor], expected: dict[str, tuple], source: str) -> dict[str, Tensor]:
    """Return the part of a state that lies below a prefix and is the module, if there is one."""
    if not expected or expected.keys() <= state.keys():
        return state
    bare = {WRAPPED.sub(r"\1", name): tensor for name, tensor in state.items()}
    if len(bare) == len(state):  # wrappers within, too: blocks.0._orig_mod.attn
        state = bare
    last = max(expected, key=lambda name: name.count("."))
    places = {}
    for name in state:
        if name == last or name.endswith(f".{last}"):
            prefix = name.removesuffix(last)
            part = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
            part = {n: t for n, t in part.items() if n in expected or not HEAD.match(n)}
            if {n: tuple(t.shape) for n, t in part.items()} == expected:
                places[prefix] = part
    if len(places) > 1:
        raise ValueError(
            f"{source} could be any of {len(places)} networks in the file, "
            f"{', '.join(f'{prefix}*' for prefix in sorted(places))}: save the one you mean alone"
        )
    return next(iter(places.values()), state)


def fetch(repository: str, file: str, kind: str) -> Path:
    """Return a file of the Hugging Face hub, downloaded once.

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
