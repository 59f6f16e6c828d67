"""Smooth: three steps with torch.cuda.set_sync_debug_mode, and what waited in them."""

import warnings

import torch

from bench.card.fast import Steps
from bench.card.work import Card, settings
from train.host_copy import HostCopy
from train.methods import build_model

LISTED: tuple[str, ...] = ()  # synchronisations that are meant: none
WAITED = "called a synchronizing CUDA operation"  # what torch says of one


def smooth(card: Card) -> dict[str, object]:
    """Return for each method what synchronised in three steps and a noted line of the log."""
    if card.device.type != "cuda":
        return {"not measured": "torch sees synchronisation on CUDA only"}
    found: dict[str, object] = {}
    for method in ("moco", "dinov2", "dinov2-no-local", "dinov2-no-local-kde"):
        config = settings(card, method=method, batch=64)
        steps = Steps(card, config, build_model(config).to(card.device))
        steps.one()  # constants are put on the card, libraries are loaded
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                for _ in range(3):
                    result = steps.one()
                    copy = HostCopy([result["loss"], result["embedding"]])
            finally:
                torch.cuda.set_sync_debug_mode("default")
        copy.wait()
        said = [f"{w.filename}:{w.lineno}: {w.message}" for w in seen]
        waits = [s for s in said if WAITED in s and not any(k in s for k in LISTED)]
        found[method] = sorted(set(waits)) or "none"
    return found
