"""One slide's nuclei, as the extract stage leaves them: run the stage, find what it wrote."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.cells import read_record
from shards.crop import decode
from shards.filetype import check_file
from shards.folder import visible
from shards.progress import NEXT
from shards.schema import CELL_COLUMNS, key

MAIN = Path(__file__).resolve().parents[2] / "extract" / "main.py"
NOT_MEASURED = ("nucleus", "x", "y", "polygon", "label", "fate", "offset", "size")
MORPHOLOGY = tuple(name for name in CELL_COLUMNS.names if name not in NOT_MEASURED)
BATCH = 20_000  # outlines decoded at once


@dataclass(frozen=True, eq=False)
class Nuclei:
    """The N kept nuclei of one slide, in the order of its table.

    Attributes:
        folder: of the cells.
        record: `<slide>.json`, the outcome.
        described: of the slide, from the table's metadata.
        table: nucleus, x, y, label, offset, size and MORPHOLOGY; about 100 bytes a nucleus.
    """

    folder: Path
    record: dict
    described: dict
    table: pa.Table

    def __len__(self) -> int:
        return len(self.table)

    @property
    def slide(self) -> str:
        return self.record["slide"]

    def keys(self, rows: slice = slice(None)) -> list[str]:
        """Return the keys of some nuclei, those of the members of the slide's tar."""
        return [key(self.slide, n) for n in self.table["nucleus"].to_numpy()[rows].tolist()]

    def crops(self, rows: np.ndarray, side: int) -> np.ndarray:
        """Return the middles of crops, (M, side, side, 3) uint8.

        Args:
            rows: (M,) of the table; those that ascend in the tar are read without going back.
            side: px, at most what is stored.

        Raises:
            ValueError: a crop is broken or smaller.
        """
        offsets = self.table["offset"].to_numpy()[rows].tolist()
        sizes = self.table["size"].to_numpy()[rows].tolist()
        out = np.empty((len(rows), side, side, 3), np.uint8)
        with open(self.folder / f"{self.slide}.tar", "rb") as file:
            for i, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
                file.seek(offset)
                crop = decode(file.read(size))
                start = (len(crop) - side) // 2
                if start < 0:
                    raise ValueError(
                        f"{self.folder}/{self.slide}.tar holds crops of {len(crop)} px, "
                        f"but {side} are needed"
                    )
                out[i] = crop[start : start + side, start : start + side]
        return out

    def outlines(self) -> Iterator[np.ndarray]:
        """Yield the kept nuclei's outlines, WKB or None each, some thousands at a time, in order.

        Yields:
            (M,) object; the parts add up to N.
        """
        with pq.ParquetFile(self.folder / f"{self.slide}.parquet") as file:
            for batch in file.iter_batches(BATCH, columns=["fate", "polygon"]):
                kept = pc.call_function("equal", [batch["fate"].cast(pa.string()), "kept"])
                yield batch["polygon"].filter(kept).to_numpy(zero_copy_only=False)


def extract(slide: Path, cells: Path, flags: list[str]) -> dict:
    """Run `extract/main.py` on one slide; a slide that is done already is passed over by it.

    Args:
        slide: its file, or the folder of a DICOM slide.

    Returns:
        The slide's record.

    Raises:
        FileNotFoundError: no such slide.
        ValueError: extract refused its input, skipped the slide or failed, with the reason.
    """
    if slide.is_dir():
        from shards.scans.dicom import volume_of

        slide = volume_of(slide)
    if not slide.is_file():
        raise FileNotFoundError(f"no slide at {slide}")
    command = [sys.executable, str(MAIN), str(slide), "--out", str(cells), *flags]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    code = done.returncode
    for line in done.stdout.splitlines():  # what comes next is another here
        if not line.startswith(NEXT):
            print(line)
    if code not in (0, 1):
        raise ValueError(f"extract did not take {slide} (exit code {code}): its error is above")
    for record in _records(cells):
        if record["path"] == str(slide.absolute()):
            return _done(cells, record)
    raise ValueError(f"extract left no record of {slide} in {cells}")


def find(cells: Path, slide: str | None) -> dict:
    """Return the record of a slide that is extracted already.

    Args:
        cells: a folder that extract/main.py wrote.
        slide: its id; None where the folder holds but one.

    Raises:
        FileNotFoundError: no such folder, or no such slide in it.
        ValueError: the slide is not done, or several are there to choose from.
    """
    if not cells.is_dir():
        raise FileNotFoundError(f"no folder {cells}; make it with `python extract/main.py`")
    records = {record["slide"]: record for record in _records(cells)}
    if slide is None and len(records) != 1:
        some = ", ".join(list(records)[:5])
        raise ValueError(f"{cells} holds {len(records)} slides ({some}); say which by --slide ID")
    slide = slide or next(iter(records))
    if slide not in records:
        raise FileNotFoundError(f"{cells} holds no slide {slide!r}: no {slide}.json")
    return _done(cells, records[slide])


def open_nuclei(cells: Path, record: dict) -> Nuclei:
    """Read the kept nuclei of one slide.

    Raises:
        ValueError: the table or the tar is not the one that its record describes, or no nucleus
            was kept.
    """
    slide = record["slide"]
    path = cells / f"{slide}.parquet"
    columns = [*(name for name in NOT_MEASURED if name not in ("polygon", "fate")), *MORPHOLOGY]
    check_file(path)
    table = pq.read_table(path, columns=columns, filters=[("fate", "=", "kept")])
    if len(table) != record["fates"]["kept"]:
        raise ValueError(
            f"{path} holds {len(table)} kept nuclei but {slide}.json says "
            f"{record['fates']['kept']}; extract that slide again"
        )
    if not len(table):
        raise ValueError(f"{path}: no nucleus was kept (fates: {record['fates']})")
    last = int((table["offset"].to_numpy() + table["size"].to_numpy()).max())
    tar = cells / f"{slide}.tar"
    if not tar.is_file() or tar.stat().st_size < last:
        raise ValueError(f"{tar} is absent or cut short; extract that slide again")
    described = json.loads((pq.read_schema(path).metadata or {}).get(b"lemon", b"{}"))
    return Nuclei(cells, record, described, table.combine_chunks())


def _records(cells: Path) -> list[dict]:
    return [read_record(path) for path in visible(cells.glob("*.json"))]


def _done(cells: Path, record: dict) -> dict:
    if record["outcome"] != "done":
        raise ValueError(
            f"{cells}/{record['slide']} is not done but {record['outcome']}: {record['reason']}"
        )
    return record
