"""Contact sheet of views: what each policy makes of some cells (paper, Fig. 5)."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from shards.read import Shards
from shards.schema import CROP_PX, VIEW_PX
from shards.write import atomic
from train.augment import apply, draw
from train.policy import policy_for

SCALE = 2  # each pixel of a view
GAP = 6  # px between cells and policies
LABEL = 16  # px of a row's title


def sheet(shards: Shards, names: list[str], cells: int, views: int, seed: int) -> Image.Image:
    """Draw cells in rows, a block of views for each policy, the stored crop on the left.

    Args:
        shards: the data.
        names: of policies.
        cells: rows.
        views: of each cell and policy, first and second views in turn.
        seed: of the choice and the draws.
    """
    rows = np.random.default_rng(seed).choice(len(shards), min(cells, len(shards)), replace=False)
    crops = torch.from_numpy(shards.read(rows))  # (C, 3, 60, 60)
    margin = (CROP_PX - VIEW_PX) // 2
    view = slice(margin, margin + VIEW_PX)
    blocks = [crops[:, None, :, view, view].float() / 255]  # (C, 1, 3, 40, 40)
    for name in names:
        policy, made = policy_for(name, shards.info), []
        for number in range(views):
            draws = draw(policy, number % 2, seed, number // 2, len(crops), range(len(crops)))
            made.append(apply(crops, draws, policy))
        blocks.append(torch.stack(made, dim=1))  # (C, views, 3, 40, 40)
    side = VIEW_PX * SCALE
    width = sum(b.shape[1] * side + GAP for b in blocks)
    picture = Image.new("RGB", (width, LABEL + len(crops) * side), "white")
    pen, left = ImageDraw.Draw(picture), 0
    for title, block in zip(["stored", *names], blocks, strict=True):
        pen.text((left + 2, 2), title, fill="black")
        count, across = block.shape[:2]
        tiled = block.permute(0, 3, 1, 4, 2).reshape(count * VIEW_PX, across * VIEW_PX, 3)
        image = Image.fromarray((tiled * 255).round().byte().numpy())
        image = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)
        picture.paste(image, (left, LABEL))
        left += across * side + GAP
    return picture


def write_sheet(
    folder: str, names: list[str], cells: int, views: int, seed: int, out: Path
) -> None:
    """Write the contact sheet of a data set.

    Raises:
        FileNotFoundError: no shards.
        ValueError: an unknown policy, or one that the data set has no stains for; no image's name.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    kind = Image.registered_extensions().get(out.suffix.lower())
    if kind not in Image.SAVE:
        raise ValueError(f"--out {out}: no image is written as {out.suffix!r}; name a .png")
    picture = sheet(Shards(folder), names, cells, views, seed)
    with atomic(out) as file:
        picture.save(file, kind)
