"""python bench/mix.py [--quick] [--data FIELDS] [--folder /tmp]

Mix 10,000, 100,000 and 1,000,000 crops (3.8 GB) of real fields, through the stage's own command,
beside `cp` of the same files on the same disk, in turn: seconds of the clock and of the processor,
peak memory, MB/s. Plain is cp followed by fsync of what it wrote, for mix syncs all it writes; cp
alone is printed too, though it ends while the bytes are still in memory. The targets: a third of
cp, under 1.5 GB at any size. It needs 15 GB of disk for the largest. `--parts` is tried too, all
parts in turn, one at a time.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import openslide
import pyarrow as pa
import pyarrow.parquet as pq

from bench.alternate import alternate, last_line, ratio
from bench.flags import bench_parser
from shards.crop import encode
from shards.schema import CELL_COLUMNS, CROP_PX, FATES, key
from shards.write import TarWriter

SIZES, REPEATS = (10_000, 100_000, 1_000_000), 3
QUICK = (10_000, 50_000)
PER_SLIDE = 10_000
PARTS = 4
POOL = 4_000  # different crops; more cells show them again under other names
FIELD = 1000  # px, side of a field


def crops_of(data: Path, count: int) -> list[bytes]:
    """Cut crops at random out of the slides of fields, as JPEG."""
    rng = np.random.default_rng(0)
    crops = []
    slides = sorted((data / "slides").glob("*.svs"))
    for path in slides:
        with openslide.OpenSlide(path) as slide:
            field = np.asarray(slide.read_region((0, 0), 0, (FIELD, FIELD)).convert("RGB"))
        for x, y in rng.integers(0, FIELD - CROP_PX, (-(-count // len(slides)), 2)):
            crops.append(encode(field[y : y + CROP_PX, x : x + CROP_PX], "jpeg"))
    return crops[:count]


def write_cells(folder: Path, count: int, crops: list[bytes]) -> int:
    """Write a cells folder as extract does; return the bytes of its tars.

    Args:
        folder: made here.
        count: cells, PER_SLIDE a slide.
        crops: that the cells show.
    """
    folder.mkdir(parents=True)
    rng, total = np.random.default_rng(1), 0
    for number in range(-(-count // PER_SLIDE)):
        slide = f"BENCH-{number:04d}"
        n = min(PER_SLIDE, count - number * PER_SLIDE)
        with open(folder / f"{slide}.tar", "wb") as file:
            tar = TarWriter(file)
            data = [crops[i] for i in rng.integers(0, len(crops), n)]
            offsets = tar.extend([f"{key(slide, i)}.jpg" for i in range(n)], data)
            sha256 = tar.close()
        total += (folder / f"{slide}.tar").stat().st_size
        columns = {
            "nucleus": np.arange(n),
            "x": rng.uniform(0, 1e5, n),
            "y": rng.uniform(0, 1e5, n),
            "area_um2": rng.uniform(10, 100, n),
            "label": ["nucleus"] * n,
            "fate": ["kept"] * n,
            "offset": offsets,
            "size": [len(d) for d in data],
        }
        nothing = {f.name: pa.nulls(n) for f in CELL_COLUMNS if f.name not in columns}
        table = pa.table(columns | nothing).select(CELL_COLUMNS.names)
        pq.write_table(table.cast(CELL_COLUMNS), folder / f"{slide}.parquet", compression="zstd")
        record = {
            "slide": slide,
            "project": f"P{number % 5}",
            "outcome": "done",
            "settings": {"codec": "jpeg"},
            "sha256": sha256,
            "fates": dict.fromkeys(FATES, 0) | {"kept": n},
        }
        (folder / f"{slide}.json").write_text(json.dumps(record))
    return total


def timed(*command: object) -> tuple[float, float, float]:
    """Run a command; return seconds of the clock and of the processor, and peak memory in GB."""
    os.sync()  # what others wrote or deleted is not this command's work
    start = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL, stdout=sys.stderr)
    done, peak = 0, 0.0
    while not done:
        time.sleep(0.02)
        peak = max(peak, resident(process.pid))
        done, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    peak = max(peak, usage.ru_maxrss / 1e6)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, peak


def resident(pid: int) -> float:
    """Return the GB that a process and its children hold, what they share counted for each."""
    total = 0
    with suppress(FileNotFoundError, ProcessLookupError):  # ended
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for number in (pid, *children):
            total += int(Path(f"/proc/{number}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 1e9


def mix(cells: Path, out: Path, *flags: object) -> tuple[float, float, float]:
    """Mix through the command."""
    return timed(sys.executable, ROOT / "shards/main.py", "mix", cells, "--out", out, *flags)


def mix_anew(cells: Path, out: Path) -> tuple[float, float, float]:
    """Mix, and delete what came of it."""
    measured = mix(cells, out)
    shutil.rmtree(out)
    return measured


def copy(cells: Path, out: Path, sync: bool) -> tuple[float, float, float]:
    """Copy the cells' files."""
    command = f"cp -r {cells} {out}" + (f" && sync {out}/*" if sync else "")
    measured = timed("sh", "-c", command)
    shutil.rmtree(out)
    return measured


def main() -> None:
    """Time each size, and print the table."""
    parser = bench_parser("mix", __doc__, "the small sizes only", "--data", "--folder")
    args = parser.parse_args()
    crops = crops_of(args.data, POOL)
    print(
        "    cells     GB  mix: s (range)           cpu s  memory GB   MB/s  cp+fsync MB/s  cp MB/s"
    )
    for count in QUICK if args.quick else SIZES:
        with tempfile.TemporaryDirectory(dir=args.folder) as name:
            folder = Path(name)
            megabytes = write_cells(folder / "cells", count, crops) / 1e6
            ways = {
                "synced": partial(copy, folder / "cells", folder / "copy", sync=True),
                "alone": partial(copy, folder / "cells", folder / "copy", sync=False),
                "ours": partial(mix_anew, folder / "cells", folder / "shards"),
            }
            measured = alternate(ways, REPEATS)
            clock, processor, memory = zip(*measured["ours"], strict=True)
            rates = {
                "ours": [megabytes / seconds for seconds in clock],
                "synced": [megabytes / seconds for seconds, _, _ in measured["synced"]],
                "alone": [megabytes / seconds for seconds, _, _ in measured["alone"]],
            }
            middle = {way: np.median(values) for way, values in rates.items()}
            text = f"{np.median(clock):6.2f} ({min(clock):.2f}–{max(clock):.2f})"
            print(
                f"{count:9,} {megabytes / 1e3:6.2f}  {text:22}  {np.median(processor):5.1f}  "
                f"{max(memory):9.2f}  {middle['ours']:5.0f}  {middle['synced']:13.0f}  "
                f"{middle['alone']:7.0f}"
            )
            parts = [
                mix(folder / "cells", folder / "parts", "--part", part, "--parts", PARTS)
                for _ in range(2)
                for part in range(PARTS)
            ]
            sums = sum(p[0] for p in parts[:PARTS]), sum(p[0] for p in parts[PARTS:])
            print(
                f"          {PARTS} parts one by one: {sums[0]:.1f} s for pass 1, {sums[1]:.1f} s "
                f"for pass 2, the longest part {max(p[0] for p in parts):.1f} s, "
                f"{sum(p[1] for p in parts):.1f} cpu s, {max(p[2] for p in parts):.2f} GB"
            )
    print(f"against cp alone: {ratio(rates['ours'], rates['alone'])}")
    print(last_line("mix", rates["ours"], rates["synced"], "MB/s"))


if __name__ == "__main__":
    main()
