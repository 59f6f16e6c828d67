"""python bench/segment.py [--quick] [--data ../shared/data/tcga-mini]

Detect nuclei with the built-in segmenter, through extract's own command, and compare them with
the annotated ones of the MoNuSeg fields: precision, recall and F1 with one-to-one matches within
3 µm, and the Dice overlap of matched outlines. The target is F1 0.80 pooled, 0.65 on any slide.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import shapely
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

ROOT = Path(__file__).resolve().parent.parent
RADIUS = 12.0  # px (3 µm)
QUICK = 3  # slides
NOT_COUNTED = ("duplicate", "size")  # fates that are no detections


def match(found: np.ndarray, true: np.ndarray, radius: float = RADIUS) -> np.ndarray:
    """Pair points one to one within a radius: as many pairs as possible, then the nearest.

    Args:
        found: (N, 2) px.
        true: (M, 2) px.
        radius: px.

    Returns:
        (K, 2) int, indices into both.
    """
    distance = cdist(found, true)
    # Each pair within reach outweighs any sum of distances, so none is given up for a nearer one.
    gain = np.where(distance <= radius, radius * (min(distance.shape, default=0) + 1), 0)
    pairs = np.stack(linear_sum_assignment(np.where(gain > 0, distance - gain, 0)), axis=1)
    return pairs[distance[pairs[:, 0], pairs[:, 1]] <= radius]


def dice(polygon: bytes, instances: np.ndarray, instance: int) -> float:
    """Return the overlap of an outline with an annotated nucleus, 2|A∩B| / (|A| + |B|).

    Args:
        polygon: WKB, px of the field.
        instances: (H, W) ids.
        instance: the nucleus' id.
    """
    shape = shapely.from_wkb(polygon)
    filled = np.zeros(instances.shape, np.uint8)
    outline = np.round(shapely.get_coordinates(shapely.get_exterior_ring(shape)))
    cv2.fillPoly(filled, [outline.astype(np.int32)], 1)
    true = instances == instance
    return 2 * np.count_nonzero(filled & true) / (filled.sum() + true.sum())


def score(cells: Path, data: Path, slide: str, true: np.ndarray) -> tuple[int, int, int, float]:
    """Return a slide's matched, found and annotated nuclei and the mean Dice of the matched.

    Args:
        cells: folder that extract wrote.
        data: folder of the benchmark.
        slide: id.
        true: (M, 3) id, x, y of the annotated nuclei, px.
    """
    table = pq.read_table(cells / f"{slide}.parquet", columns=["x", "y", "polygon", "fate"])
    counted = ~np.isin(table["fate"].to_numpy(zero_copy_only=False).astype(str), NOT_COUNTED)
    found = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)[counted]
    polygons = np.array(table["polygon"].to_pylist(), object)[counted]
    instances = cv2.imread(str(data / "labels" / f"{slide}_inst.png"), cv2.IMREAD_UNCHANGED)
    pairs = match(found, true[:, 1:])
    overlaps = [dice(polygons[i], instances, int(true[j, 0])) for i, j in pairs]
    return len(pairs), len(found), len(true), float(np.mean(overlaps)) if overlaps else 0.0


def _rates(matched: int, found: int, true: int) -> tuple[float, float, float]:
    """Return precision, recall and F1."""
    return matched / max(found, 1), matched / max(true, 1), 2 * matched / max(found + true, 1)


def _extract(data: Path, slides: list[str], out: Path) -> None:
    """Run extract's command on the named slides of the benchmark."""
    with open(data / "slides.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["slide_id"] in slides]
    manifest = out / "slides.csv"
    with open(manifest, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "path": str(data / row["path"])} for row in rows)
    command = [sys.executable, str(ROOT / "extract" / "main.py"), str(manifest)]
    subprocess.run([*command, "--out", str(out / "cells")], check=True)


def main() -> None:
    """Extract, match, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--data", type=Path, default=ROOT / "../shared/data/tcga-mini")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK} slides")
    args = parser.parse_args()
    data = args.data.resolve()
    true: dict[str, list[tuple[float, ...]]] = {}
    with open(data / "nuclei.csv", newline="") as file:
        for row in csv.DictReader(file):
            nucleus = (float(row["nucleus"]), float(row["x"]), float(row["y"]))
            true.setdefault(row["slide_id"], []).append(nucleus)
    slides = sorted(true)[:: -(-len(true) // QUICK) if args.quick else 1]
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        _extract(data, slides, Path(folder))
        print(f"{'slide':28}  found   true  precision  recall     F1   Dice")
        for slide in slides:
            *count, overlap = score(Path(folder) / "cells", data, slide, np.array(true[slide]))
            counts.append(count)
            precision, recall, f1 = _rates(*count)
            print(
                f"{slide:28}  {count[1]:5}  {count[2]:5}      {precision:.3f}   {recall:.3f}"
                f"  {f1:.3f}  {overlap:.3f}"
            )
    precision, recall, f1 = _rates(*np.sum(counts, axis=0))
    worst = min(_rates(*count)[2] for count in counts)
    print(
        f"segment: F1 {f1:.3f} (worst slide {worst:.3f} of {len(slides)}) "
        f"precision {precision:.3f} recall {recall:.3f}"
    )


if __name__ == "__main__":
    main()
