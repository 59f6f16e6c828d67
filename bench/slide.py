"""python bench/slide.py [--quick] [--data FIELDS] [--folder /tmp]

Embed a slide of many nuclei for downstream work, through `evaluate/main.py slide` as a user runs
it: seconds and peak memory from its cells to .h5ad, .parquet and .geojson. The slide is simulated:
a cells folder whose tar shows crops of real fields again and again, with round outlines; the
network is a tiny ViT (1 block of 64), so that what is measured is all but the network. Plain is
the way of scripts: decode every crop into one array, embed it whole, `AnnData(...).write_h5ad`
(anndata must be installed), .h5ad alone, on the smallest size. Peak memory must not grow with the
number of nuclei by more than their table. Then a real field, from slide to file, with ViT-S/8 (the
time of Python's start, imports, segmentation and all are in it).
"""

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from bench.alternate import last_line
from bench.flags import bench_parser
from bench.mix import crops_of, timed
from shards.schema import CELL_COLUMNS, FATES, key
from shards.write import TarWriter

SIZES, REPEATS = (100_000, 1_000_000), 3
QUICK = (20_000,)
POOL, BLOCK = 4_000, 50_000
PLAIN = """
import sys, json
sys.path[0] = {root!r}
import anndata, numpy as np, pandas, pyarrow.parquet as pq
from pathlib import Path
from evaluate.encoders import open_encoders
from shards.crop import decode
from shards.schema import key
folder = Path({folder!r})
table = pq.read_table(folder / "cells/BENCH.parquet").to_pandas()
data = (folder / "cells/BENCH.tar").read_bytes()
crops = np.stack([decode(data[o:o + s]) for o, s in zip(table["offset"], table["size"])])
(encoder,) = open_encoders([{encoder!r}])
table.index = [key("BENCH", n) for n in table["nucleus"]]
adata = anndata.AnnData(encoder.embed(crops), table.drop(columns=["polygon", "fate", "label"]))
adata.obsm["spatial"] = table[["x", "y"]].to_numpy()
adata.write_h5ad(folder / "plain.h5ad")
"""


def write_slide(folder: Path, count: int, crops: list[bytes]) -> None:
    """Write the cells of one simulated slide, as extract does."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    with open(folder / "BENCH.tar", "wb") as file:
        tar, tables = TarWriter(file), []
        for first in range(0, count, BLOCK):
            numbers = np.arange(first, min(first + BLOCK, count))
            n = len(numbers)
            data = [crops[i] for i in rng.integers(0, len(crops), n)]
            offsets = tar.extend([f"{key('BENCH', i)}.jpg" for i in numbers.tolist()], data)
            xy = rng.uniform(0, 1e5, (n, 2)).astype(np.float32)
            columns = {name: rng.uniform(0.1, 100, n) for name in CELL_COLUMNS.names[3:14]} | {
                "nucleus": numbers,
                "x": xy[:, 0],
                "y": xy[:, 1],
                "polygon": shapely.to_wkb(shapely.buffer(shapely.points(xy), 12, quad_segs=6)),
                "label": ["nucleus"] * n,
                "fate": ["kept"] * n,
                "offset": offsets,
                "size": [len(d) for d in data],
            }
            tables.append(pa.table(columns).select(CELL_COLUMNS.names).cast(CELL_COLUMNS))
        sha256 = tar.close()
    schema = CELL_COLUMNS.with_metadata({"lemon": json.dumps({"slide": "BENCH", "mpp": 0.25})})
    table = pa.concat_tables(tables).cast(schema)
    pq.write_table(table, folder / "BENCH.parquet", compression="zstd", row_group_size=20_000)
    record = {
        "slide": "BENCH",
        "project": "P",
        "path": str(folder / "no-slide.svs"),
        "outcome": "done",
        "fates": dict.fromkeys(FATES, 0) | {"kept": count},
        "sha256": sha256,
    }
    (folder / "BENCH.json").write_text(json.dumps(record))


def write_encoder(folder: Path, name: str, **arguments: object) -> Path:
    """Write an encoder folder with random weights; return it."""
    import timm

    from train.encoder import described, save_encoder

    model = described(timm.create_model(name, **arguments), name, arguments, 40)
    save_encoder(model, folder, [0.5] * 3, [0.25] * 3, 0.25)
    return folder


def ours(*words: object) -> tuple[float, float, float]:
    """Run the command."""
    return timed(sys.executable, ROOT / "evaluate/main.py", "slide", *words)


def main() -> None:
    """Time each size, ours and the plain way in turn on the smallest."""
    parser = bench_parser("slide", __doc__, "20,000 nuclei, once", "--data", "--folder")
    args = parser.parse_args()
    sizes, repeats = (QUICK, 1) if args.quick else (SIZES, REPEATS)
    crops = crops_of(args.data, POOL)
    tiny = {"patch_size": 8, "depth": 1, "embed_dim": 64, "num_heads": 2}
    shared = {"img_size": 40, "num_classes": 0, "global_pool": "token"}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        tiny = write_encoder(folder / "tiny", "vit_tiny_patch16_224", **tiny, **shared)
        print("   nuclei  files                s (range)            nuclei/s  memory GB")
        rates: dict[str, list[float]] = {}
        for count in sizes:
            write_slide(folder / "cells", count, crops)
            cells = ("--cells", folder / "cells", "--encoder", tiny)

            def table(files: str, found: list, count: int = count) -> None:
                seconds, _, memory = map(np.array, zip(*found, strict=True))
                clock = f"{np.median(seconds):6.1f} ({min(seconds):.1f}–{max(seconds):.1f})"
                rate = count / np.median(seconds)
                print(f"{count:9,}  {files:19}  {clock:20} {rate:8,.0f}  {max(memory):9.2f}")

            found, plain = [], []
            for _ in range(repeats if count == sizes[0] else 1):
                found.append(ours(*cells, "--out", folder / "x.h5ad", "--overwrite"))
                if count == sizes[0]:
                    words = {"root": str(ROOT), "folder": str(folder), "encoder": str(tiny)}
                    plain.append(timed(sys.executable, "-c", PLAIN.format(**words)))
            table("h5ad", found)
            for kind in ("parquet", "geojson"):
                table(f"+ {kind} (embedded)", [ours(*cells, "--work", folder / "x.work",
                      "--out", folder / f"x.{kind}")])  # fmt: skip
            if plain:
                table("plain: h5ad", plain)
                rates["ours"] = [count / s for s, _, _ in found]
                rates["plain"] = [count / s for s, _, _ in plain]
            for path in (*folder.glob("cells/*"), *folder.glob("x.*/*/*/*")):
                path.unlink()
            (folder / "cells").rmdir()
        small = write_encoder(folder / "small", "vit_small_patch8_224", num_heads=12, **shared)
        slide = sorted((args.data / "slides").glob("*.svs"))[0]
        seconds, _, memory = ours(slide, "--encoder", small, "--out", folder / "real.h5ad")
        n = pq.read_table(next((folder / "real.work/cells").glob("*.parquet")), columns=["fate"])
        n = n["fate"].to_pylist().count("kept")
        print(f"{n:9,}  {slide.name} ViT-S/8: {seconds:.1f} s, {n / seconds:.0f} nuclei/s, "
              f"{memory:.2f} GB")  # fmt: skip
    print(last_line("slide", rates["ours"], rates["plain"], "nuclei/s"))


if __name__ == "__main__":
    main()
