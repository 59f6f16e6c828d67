"""python bench/segment.py [--quick] [--data FOLDER …] [--segmenter NAME …] [--hoverfast-model FILE]

Detect nuclei through extract's own command, and compare them with outlined ones: F1 of centres one
to one within 3 µm, F1 of outlines at IoU 0.5, Dice of foreground, AJI and PQ, by field and pooled.
A folder of fields is one that `extract/main.py train-segmenter` takes; `FOLDER:test_*,a_*` takes
only the fields so named.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import shapely
import tifffile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.flags import DATA, FIELDS, bench_parser, existing
from extract.network.fields import Field, read_fields
from extract.network.scores import rates, scores

QUICK = 3  # fields of a folder
NOT_COUNTED = ("duplicate", "size")  # fates that are no detections
SHIFT = 4  # bits of fraction in what OpenCV fills


def write_slides(fields: list[Field], out: Path) -> Path:
    """Write fields as lossless tiled TIFFs at 0.25 µm/px, and their list."""
    rows = []
    for field in fields:
        path = out / f"{field.name}.tif"
        tifffile.imwrite(
            path,
            field.image,
            tile=(256, 256),
            photometric="rgb",
            compression="deflate",
            resolution=(40_000, 40_000),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
        rows.append({"path": str(path), "slide_id": field.name, "mpp": 0.25})
    manifest = out / "slides.csv"
    with open(manifest, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def label_image(table: Path, shape: tuple[int, int]) -> np.ndarray:
    """Fill the outlines of a slide's table, (H, W) int32."""
    columns = pq.read_table(table, columns=["polygon", "fate"])
    fates = columns["fate"].to_numpy(zero_copy_only=False).astype(str)
    polygons = np.array(columns["polygon"].to_pylist(), object)[~np.isin(fates, NOT_COUNTED)]
    labels = np.zeros(shape, np.int32)
    for number, polygon in enumerate(shapely.from_wkb(polygons), start=1):
        ring = shapely.get_coordinates(shapely.get_exterior_ring(polygon))
        mask = np.zeros(shape, np.uint8)
        cv2.fillPoly(mask, [np.round(ring * 2**SHIFT).astype(np.int32)], 1, shift=SHIFT)
        labels[(mask > 0) & (labels == 0)] = number
    return labels


def main() -> None:
    """Extract, score, and print the tables."""
    parser = bench_parser("segment", __doc__, f"only {QUICK} fields of each folder")
    parser.add_argument(
        "--data",
        nargs="+",
        default=[str(FIELDS), f"{DATA}/consep:test_*"],
        help="folders of fields; FOLDER:PATTERN takes some",
    )
    parser.add_argument("--segmenter", nargs="+", default=["rays", "hoverfast"], help="of extract")
    parser.add_argument("--hoverfast-model", help="weights other than those of the clone")
    args = parser.parse_args()
    lines = []
    for word in args.data:
        name, _, pattern = word.partition(":")
        try:
            folder = existing(name)
        except argparse.ArgumentTypeError as error:
            parser.error(str(error))
        fields = [f for f in read_fields(folder) if f.has_instances]
        wanted = (pattern or "*").split(",")
        fields = [f for f in fields if any(fnmatchcase(f.name, name) for name in wanted)]
        fields = fields[:: -(-len(fields) // QUICK)] if args.quick else fields
        lines += _compare(folder.name, fields, args.segmenter, args.hoverfast_model)
    print(*lines, sep="\n")


def _compare(name: str, fields: list[Field], segmenters: list[str], model: str | None) -> list[str]:
    """Print the fields' scores by each segmenter; return the pooled lines."""
    counts: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_slides(fields, Path(folder))
        for segmenter in segmenters:
            cells = Path(folder) / segmenter
            command = [sys.executable, str(ROOT / "extract" / "main.py"), str(manifest)]
            command += ["--out", str(cells), "--segmenter", segmenter]
            if segmenter == "hoverfast" and model:
                command += ["--hoverfast-model", model]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            counts[segmenter] = [
                scores(label_image(cells / f"{f.name}.parquet", f.labels.shape), f.labels)
                for f in fields
            ]
    keys = ("f1", "f1_iou", "dice", "aji", "pq")
    print(f"{name}: F1 (3 µm), F1 (IoU 0.5), Dice, AJI, PQ of " + ", ".join(segmenters))
    for number, field in enumerate(fields):
        each = [rates([counts[s][number]]) for s in segmenters]
        values = "   ".join(" ".join(f"{rate[key]:.3f}" for key in keys) for rate in each)
        print(f"  {field.name:26} {values}")
    lines = []
    for segmenter in segmenters:
        rate = rates(counts[segmenter])
        worst = min(rates([count])["f1"] for count in counts[segmenter])
        lines.append(
            f"segment: {name} ({len(fields)} fields) {segmenter} F1 {rate['f1']:.3f} "
            f"(worst {worst:.3f}), at IoU 0.5 {rate['f1_iou']:.3f}, Dice {rate['dice']:.3f}, "
            f"AJI {rate['aji']:.3f}, PQ {rate['pq']:.3f}"
        )
    if len(segmenters) == 2:
        first, second = (counts[s] for s in segmenters)
        pairs = zip(first, second, strict=True)
        behind = sum(rates([b])["f1"] < rates([a])["f1"] for a, b in pairs)
        lines.append(f"  {segmenters[1]} below {segmenters[0]} on {behind} of {len(fields)} fields")
    return lines


if __name__ == "__main__":
    main()
