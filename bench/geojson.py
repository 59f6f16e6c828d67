"""python bench/geojson.py [--quick]

Read HoverFast's output, `.json.gz` of a million nuclei (14 corners each, about 465 bytes of JSON),
into packed outlines, centres, labels and duplicates, as `--segmenter import` does; and in turn the
plain way: json.load and a shapely.shape of every feature, of a tenth of the file. Figures are per
second of CPU time of one core. The targets: 100,000 nuclei/s, a million in less than 500 MB.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from bench.alternate import alternate, last_line
from bench.flags import bench_parser

NUCLEI, PLAIN, REPEATS = 1_000_000, 100_000, 5
QUICK = (100_000, 20_000, 3)
CORNERS = 14
SPACING = 40  # px between centres
FEATURE = (
    '{"geometry":{"type":"Polygon","coordinates":[[%s]],"centroid":[%d,%d]},"properties":'
    '{"object_type":"cell","classification":{"name":"Nuclei","colorRGB":-65536},"isLocked":false},'
    '"type":"Feature"}'
)


def write_nuclei(path: Path, count: int, rng: np.random.Generator) -> int:
    """Write as many nuclei on a jittered grid, in HoverFast's layout; return the JSON's bytes."""
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    side, size = int(np.ceil(count**0.5)), 0
    with gzip.open(path, "wt", compresslevel=6) as file:
        size += file.write("[\n")
        for i in range(count):
            x, y = SPACING * (i % side) + 1000, SPACING * (i // side) + 1000
            radius = rng.uniform(8, 16) * rng.uniform(0.85, 1.15, CORNERS)
            xs = (x + radius * np.cos(turn)).astype(int).tolist()
            ys = (y + radius * np.sin(turn)).astype(int).tolist()
            ring = [f"[{a}.0,{b}.0]" for a, b in zip(xs, ys, strict=True)]
            feature = FEATURE % (",".join([*ring, ring[0]]), x, y)
            size += file.write(feature + (",\n" if i < count - 1 else "\n]"))
    return size


def ours(path: Path) -> int:
    """Read a file as extract does."""
    from extract.segment.imported import gather
    from extract.segment.nuclei_file import open_nuclei

    return len(gather(open_nuclei(path), 1.0, (0, 0), 0.25).xy)


def plain(path: Path) -> int:
    """Read a file as one would."""
    import shapely.geometry

    with gzip.open(path) as file:
        features = json.load(file)
    polygons = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    return len(polygons)


def measure(way: str, path: Path) -> tuple[float, float]:
    """Return nuclei/s of CPU time and peak MB of a way, in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--file", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rate, peak = map(float, done.stdout.split())
    return rate, peak


def work(way: str, path: Path) -> None:
    """Read a file in this process and print nuclei/s of CPU time and peak MB."""
    reader = {"ours": ours, "plain": plain}[way]
    import extract.segment.imported  # the imports are not the reading

    assert extract.segment.imported
    start = time.process_time()
    count = reader(path)
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text()
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    print(count / seconds, int(peak) / 1024)


def main() -> None:
    """Write the files, measure in turn, print the table."""
    parser = bench_parser("geojson", __doc__, "a tenth of the nuclei, 3 repeats")
    parser.add_argument("--way", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        work(args.way, args.file)
        return
    count, few, repeats = QUICK if args.quick else (NUCLEI, PLAIN, REPEATS)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder) / "large.json.gz", Path(folder) / "small.json.gz"
        size = write_nuclei(large, count, rng)
        write_nuclei(small, few, rng)
        ways = {"ours": partial(measure, "ours", large), "plain": partial(measure, "plain", small)}
        measured = alternate(ways, repeats)
    rates = {way: [rate for rate, _ in values] for way, values in measured.items()}
    print(f"{count} nuclei in {size / 1e6:.0f} MB of JSON, {repeats} times in turn")
    for way, of in (("ours", count), ("plain", few)):
        low, high = min(rates[way]), max(rates[way])
        print(f"{way:6}{np.median(rates[way]):8.0f} ({low:.0f}–{high:.0f}) nuclei/s", end="")
        print(f"  peak {max(peak for _, peak in measured[way]):.0f} MB for {of} nuclei")
    print(last_line("geojson", rates["ours"], rates["plain"], "nuclei/s", digits=1))


if __name__ == "__main__":
    main()
