"""python bench/extract.py [--quick] [--data FIELDS]

Cut 50,000 nuclei out of a slide into a tar, in one process, ours and the plain way in turn: plain
is OpenSlide's `read_region` per nucleus in random order, Pillow's PNG, tarfile. The slide is
8192x8192 px of real fields in 256-px JPEG tiles. The limit is decoding each tile once and encoding
each crop once, with nothing between. The targets: 20 times plain, half of the limit, under 1 GB.
"""

import csv
import io
import multiprocessing
import os
import re
import sys
import tarfile
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
import openslide
import shapely

from bench.alternate import alternate, last_line
from bench.flags import bench_parser
from demo.paint import write_slide
from extract.crops import assign_fates, write_crops
from extract.slide import Slide
from extract.tiff import JpegTiles
from shards.crop import cut, encode
from shards.schema import CROP_PX, MPP
from shards.stain import REFERENCE, REFERENCE_MAX, Stain

SIDE, NUCLEI, PLAIN, REPEATS = 8192, 50_000, 4_000, 5
QUICK = (4096, 12_000, 1_000, 3)
FIELD = 1000  # px, side of a field
JITTER = 8  # px about an annotated nucleus, so that no two windows are one
RADIUS = 14.0  # px of the circles that stand for outlines


def build_slide(data: Path, path: Path, side: int, rng: np.random.Generator) -> np.ndarray:
    """Lay the annotated fields side by side as one slide.

    Args:
        data: the folder of fields.
        path: of the slide.
        side: px.
        rng: which field lies where.

    Returns:
        (N, 2) the annotated nuclei, px of the slide.
    """
    centres: dict[str, list[tuple[float, float]]] = {}
    with open(data / "nuclei.csv", newline="") as file:
        for row in csv.DictReader(file):
            centres.setdefault(row["slide_id"], []).append((float(row["x"]), float(row["y"])))
    fields = {}
    for name in sorted(centres):
        field = openslide.OpenSlide(data / "slides" / f"{name}.svs")
        fields[name] = np.asarray(field.read_region((0, 0), 0, (FIELD, FIELD)).convert("RGB"))
    image, nuclei = np.empty((side, side, 3), np.uint8), []
    for y in range(0, side, FIELD):
        for x in range(0, side, FIELD):
            name = rng.choice(list(fields))
            part = image[y : y + FIELD, x : x + FIELD]
            part[:] = fields[name][: part.shape[0], : part.shape[1]]
            nuclei.append(np.add(centres[name], (x, y)))
    write_slide(path, image, MPP)
    return np.concatenate(nuclei)


def ours(slide: Path, xy: np.ndarray, out: Path, outlines: np.ndarray | None = None) -> int:
    """Cut the nuclei as extract does, measure stains inside outlines; return how many."""
    scan = Slide(slide)
    assert scan.fast
    fate = assign_fates(scan, xy, np.full(len(xy), 50.0), np.zeros(len(xy), bool))
    stain = Stain(REFERENCE, REFERENCE_MAX, fallback=True)
    with open(out, "wb") as file:
        found = write_crops(scan, "S", xy, fate, "jpeg", file, outlines=outlines, stain=stain)
    return int((found.size > 0).sum())


def plain(slide: Path, xy: np.ndarray, out: Path) -> int:
    """Cut the nuclei one after the other with the obvious tools; return how many."""
    scan = openslide.OpenSlide(slide)
    with tarfile.open(out, "w") as tar:
        for i, (x, y) in enumerate(np.round(xy).astype(int).tolist()):
            corner = (x - CROP_PX // 2, y - CROP_PX // 2)
            crop = scan.read_region(corner, 0, (CROP_PX, CROP_PX)).convert("RGB")
            data = io.BytesIO()
            crop.save(data, "PNG")
            member = tarfile.TarInfo(f"S_{i:07d}.png")
            member.size = data.tell()
            data.seek(0)
            tar.addfile(member, data)
    return len(xy)


def limit(slide: Path, crops: np.ndarray) -> int:
    """Decode every tile once and encode every crop once; return how many crops."""
    tiles = JpegTiles(slide)
    for row in range(tiles.rows):
        for column in range(tiles.columns):
            tiles.read(row, column)
    for crop in crops:
        encode(crop, "jpeg")
    return len(crops)


def rate(work, *arguments) -> float:
    """Return how many nuclei some work does in a second of CPU time: the machine may be shared."""
    start = time.process_time()
    count = work(*arguments)
    return count / (time.process_time() - start)


def _peak(slide: Path, xy: np.ndarray, out: Path, queue) -> None:
    """Send the memory that a process needed that only cut the nuclei, MB."""
    ours(slide, xy, out)
    # Not getrusage, which counts what the parent held when it forked.
    status = Path("/proc/self/status").read_text()
    queue.put(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)


def main() -> None:
    """Build the slide, measure in turn, print the table."""
    parser = bench_parser("extract", __doc__, "a quarter of the slide, 3 repeats", "--data")
    args = parser.parse_args()
    side, count, few, repeats = QUICK if args.quick else (SIDE, NUCLEI, PLAIN, REPEATS)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        slide, tar = Path(folder) / "slide.tiff", Path(folder) / "out.tar"
        nuclei = build_slide(args.data, slide, side, rng)
        xy = rng.choice(nuclei, count) + rng.uniform(-JITTER, JITTER, (count, 2))
        xy = np.clip(xy, CROP_PX, side - CROP_PX)
        outlines = shapely.buffer(shapely.points(xy), RADIUS)
        image = Slide(slide).read(0, 0, side, side)
        crops = cut(image, xy, MPP, CROP_PX)
        del image
        ours(slide, xy[:few], tar)  # first calls are slower
        ways = {
            "ours": partial(rate, ours, slide, xy, tar),
            "plain": partial(rate, plain, slide, xy[:few], tar),
            "limit": partial(rate, limit, slide, crops),
            "with densities": partial(rate, ours, slide, xy, tar, outlines),
        }
        rates = alternate(ways, repeats)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        child = context.Process(target=_peak, args=(slide, xy, tar, queue))
        child.start()
        peak = queue.get()
        child.join()
    print(f"{side}x{side} px, {count} nuclei, {repeats} times in turn; nuclei/s, median (range)")
    for name, values in rates.items():
        print(f"{name:15} {np.median(values):8.0f}  ({min(values):.0f}–{max(values):.0f})")
    shares = np.array(rates["ours"]) / rates["limit"]
    print(f"ours is {np.median(shares):.2f} of the limit ({shares.min():.2f}–{shares.max():.2f})")
    print(f"peak memory {peak:.0f} MB")
    print(last_line("extract", rates["ours"], rates["plain"], "nuclei/s", digits=1))


if __name__ == "__main__":
    main()
