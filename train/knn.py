"""The online probe: k-NN on a small labelled folder, to see a run learn."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

K = 20
CELLS = 4000  # at most, so that a probe takes seconds
BATCH = 256


class Knn:
    """Embed the cells of a prepared benchmark and classify each by its neighbours."""

    def __init__(self, folder: Path, input_px: int):
        """Read a folder that `python evaluate/main.py prepare` wrote.

        Args:
            folder: holds crops.npy (N, P, P, 3) uint8 and cells.parquet with label and group.
            input_px: side of a view; larger crops are cut to their middle.

        Raises:
            FileNotFoundError: the folder is not a prepared benchmark.
            ValueError: its crops are smaller than the input.
        """
        for name in ("crops.npy", "cells.parquet"):
            if not (folder / name).is_file():
                raise FileNotFoundError(
                    f"--probe {folder}: no {name} in it; make it with `python evaluate/main.py "
                    "prepare BENCHMARK --out …`"
                )
        crops = np.load(folder / "crops.npy", mmap_mode="r")
        table = pq.read_table(folder / "cells.parquet", columns=["label", "group"])
        rows = np.sort(np.random.default_rng(0).permutation(len(crops))[:CELLS])
        margin = (crops.shape[1] - input_px) // 2
        if margin < 0:
            raise ValueError(f"--probe {folder}: crops of {crops.shape[1]} px, {input_px} needed")
        view = slice(margin, margin + input_px)
        self.crops = torch.from_numpy(crops[rows][:, view, view]).permute(0, 3, 1, 2)
        names, labels = np.unique(table["label"].to_numpy()[rows], return_inverse=True)
        self.classes = len(names)
        self.labels = torch.from_numpy(labels)
        groups = np.unique(table["group"].to_numpy()[rows], return_inverse=True)[1]
        self.groups = torch.from_numpy(groups)

    def score(self, encoder: nn.Module, mean: Tensor, std: Tensor) -> float:
        """Return the balanced accuracy of k-NN, neighbours of the own group left out.

        Args:
            encoder: from (N, 3, H, H) to (N, D); put back into the mode it was in.
            mean: (1, 3, 1, 1), of pixels in [0, 1].
            std: likewise.
        """
        training = encoder.training
        encoder.eval()
        with torch.inference_mode():
            parts = [
                encoder((crops.to(mean.device).float() / 255 - mean) / std).float().cpu()
                for crops in self.crops.split(BATCH)
            ]
        encoder.train(training)
        predicted = neighbours_vote(torch.cat(parts), self.labels, self.groups, self.classes)
        hits = (predicted == self.labels).double()
        totals = torch.bincount(self.labels, minlength=self.classes)
        return float((torch.bincount(self.labels, hits, self.classes) / totals).mean())


def neighbours_vote(features: Tensor, labels: Tensor, groups: Tensor, classes: int) -> Tensor:
    """Return the class most of the K nearest by cosine have, the lower of equals, (N,).

    Args:
        features: (N, D), centred here.
        labels: (N,) int in [0, classes).
        groups: (N,) int; neighbours of the own group do not vote, if there are others.
        classes: how many.
    """
    unit = torch.nn.functional.normalize(features - features.mean(0), dim=1)
    apart = len(groups.unique()) > 1
    votes = []
    for rows in torch.arange(len(unit)).split(1024):
        cosine = unit[rows] @ unit.T  # (B, N)
        own = groups[rows, None] == groups if apart else rows[:, None] == torch.arange(len(unit))
        nearest = cosine.masked_fill(own, -2).topk(min(K, len(unit) - 1), dim=1).indices
        votes.append(torch.nn.functional.one_hot(labels[nearest], classes).sum(1))
    return torch.cat(votes).argmax(1)
