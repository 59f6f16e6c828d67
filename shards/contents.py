"""Say and show what a data set holds."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shards.read import Shards
from shards.write import atomic

SHEET = (12, 20)  # rows and columns of crops
GAP = 2  # px between crops
LINES = 30  # projects listed at most


def describe(shards: Shards) -> str:
    """Return what a data set is: cells, slides, projects, colours, in lines of text."""
    info = shards.info
    slides, projects, labels = _counts(shards.folder / "index.parquet")
    counts = np.array(sorted(slides.values()))
    size = sum(shard["bytes"] for shard in info["shards"])
    lines = [
        f"{shards.folder}",
        f"  cells     {len(shards):,} of {info['patch_px']}x{info['patch_px']} px at "
        f"{info['mpp']} µm/px, {info['codec']}",
        f"  shards    {len(info['shards']):,}, {size / 1e9:.3f} GB, seed {info['seed']}, checksum "
        f"{info['checksum']}",
        f"  slides    {len(slides):,}, with {counts[0]:,} to {counts[-1]:,} cells, median "
        f"{int(np.median(counts)):,}",
    ]
    for title, counted in (("projects", projects), ("labels", labels)):
        lines += [f"  {title:9} {len(counted):,}"] if any(counted) else []
        for name, (cells, of_slides) in list(counted.items())[:LINES] if any(counted) else []:
            lines.append(f"    {name or '(none)':24} {cells:12,} cells  {of_slides:7,} slides")
    for name in ("mean", "std"):
        lines.append(f"  {name:9} {' '.join(f'{v:.4f}' for v in info[name])} of red, green, blue")
    if "stain" in info:
        mean = info["stain"]["gmm1"]["means"][0]
        lines.append(
            f"  stain     {' '.join(f'{v:.1f}' for v in mean)} ({info['stain']['space']}; "
            f"{info['stain']['crops']:,} crops; mixtures of "
            f"{' and '.join(str(len(info['stain'][g]['weights'])) for g in ('gmm1', 'gmm10'))})"
        )
    return "\n".join(lines)


def write_sheet(shards: Shards, path: Path) -> None:
    """Write a PNG of the data set's first crops, which mixing made a random sample."""
    rows, columns = SHEET
    crops = shards.read(np.arange(min(rows * columns, len(shards)))).transpose(0, 2, 3, 1)
    side = crops.shape[1] + GAP
    sheet = np.full((-(-len(crops) // columns) * side, columns * side, 3), 255, np.uint8)
    for i, crop in enumerate(crops):
        y, x = (i // columns) * side, (i % columns) * side
        sheet[y : y + side - GAP, x : x + side - GAP] = crop
    with atomic(path) as file:
        file.write(cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))[1].tobytes())


def _counts(index: Path) -> tuple[Counter, dict, dict]:
    """Count an index, some rows at a time.

    Returns:
        Cells by slide; and cells and slides by project and by label, the largest first.
    """
    slides: Counter = Counter()
    groups: dict[str, tuple[Counter, dict[str, set]]] = {
        name: (Counter(), {}) for name in ("project", "label")
    }
    for batch in pq.ParquetFile(index).iter_batches(columns=["slide", "project", "label"]):
        table = pa.Table.from_batches([batch])
        counted = table.group_by(["slide", "project", "label"]).aggregate([([], "count_all")])
        for row in counted.to_pylist():
            slides[row["slide"]] += row["count_all"]
            for name, (cells, of_slides) in groups.items():
                cells[row[name] or ""] += row["count_all"]
                of_slides.setdefault(row[name] or "", set()).add(row["slide"])
    projects, labels = (
        {name: (count, len(of_slides[name])) for name, count in cells.most_common()}
        for cells, of_slides in groups.values()
    )
    return slides, projects, labels
