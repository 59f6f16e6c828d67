"""One slide's work: from the slide to its three files in the cells folder."""

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from extract.absence import why_none, why_none_kept
from extract.crops import assign_fates, write_crops
from extract.inputs import fingerprint
from extract.ledger import Settings, record_outcome
from extract.morphology import DENSITY_COLUMNS, SHAPE_COLUMNS, shape
from extract.segment import hoverfast, imported, rays
from extract.segment.detections import BATCH, Detections, Outlines
from extract.segment.masks import find_mask, judge
from extract.segment.matching import own_file
from extract.slide import Slide, not_40x
from extract.slides import Entry, check_download
from extract.status import fault
from extract.tiles import estimate_stain, find_tissue, segment_by_tiles, within
from shards.errors import explain
from shards.schema import CELL_COLUMNS, FATES, MPP
from shards.stain import Stain
from shards.write import atomic

SEGMENTATIONS = "segmentations"  # folder in the cells folder: other programs' output, kept


def extract_slide(entry: Entry, out: Path, settings: Settings) -> dict:
    """Segment a slide, cut its nuclei, and write `<slide>.tar`, `.parquet` and `.json`.

    The outcome is written last. Bad input becomes an outcome with its reason, not an error.

    Returns:
        The slide's record as written to `<slide>.json`.
    """
    start = time.perf_counter()
    try:
        check_download(entry)
        slide = Slide(entry.path, entry.mpp)
        inputs = {"slide": fingerprint(entry.path, whole=False) | {"md5": entry.md5}}
        reason = None if settings.any_scale else not_40x(slide)
        if reason:
            facts = {"mpp": slide.mpp, "inputs": inputs}
            return record_outcome(out, entry, settings, "skipped", reason, **facts)
        inputs |= {what: fingerprint(path) for what, path in _beside(entry, settings).items()}
        segment = SEGMENTERS[settings.segmenter]
        detections, stain, about = segment(slide, entry, settings, out / SEGMENTATIONS)
        facts = _write_cells(slide, detections, stain, entry, out, settings, about["version"])
        wrong = fault(out, {"slide": entry.slide, "settings": asdict(settings), **facts})
        if wrong:
            raise ValueError(f"what was written does not add up: {wrong}")
        reason = _reason(slide, entry, settings, facts, about)
    except (ValueError, OSError) as error:
        return record_outcome(out, entry, settings, "failed", explain(error))
    return record_outcome(
        out,
        entry,
        settings,
        "done",
        reason,
        **{name: getattr(slide, name) for name in ("mpp", "mpp_source", "width", "height")},
        **facts,
        inputs=inputs,
        segmentation=about,
        seconds=round(time.perf_counter() - start, 2),
        versions={"segmenter": about["version"]}
        | {p: version(p) for p in ("openslide-python", "openslide-bin", "scikit-image", "numpy")},
        command=shlex.join(sys.argv),
    )


def _beside(entry: Entry, settings: Settings) -> dict[str, Path]:
    """Return the files that determine a slide's cells beside it: its mask or segmentation."""
    files = {}
    if settings.imported:
        files["segmentation"] = own_file(entry.nuclei, settings.imported.source, entry, "--from")
    elif settings.masks:
        files["mask"] = own_file(entry.mask, settings.masks, entry, "--masks")
    return files


def _reason(slide: Slide, entry: Entry, settings: Settings, facts: dict, about: dict) -> str:
    """Say why a slide that is done has no cells, or nothing where it has some."""
    if facts["fates"]["kept"]:
        return ""
    if facts["detected"]:
        return why_none_kept(facts["fates"])
    mask = None if settings.imported else find_mask(settings.masks, slide, entry)
    return why_none(slide, settings.segmenter, about, mask, settings.seed)


def _write_cells(
    slide: Slide,
    detections: Detections,
    stain: Stain | None,
    entry: Entry,
    out: Path,
    settings: Settings,
    segmenter_version: str,
) -> dict:
    """Write the tar and the table; return the counts and the tar's sha256."""
    # Rounded as the table stores them, so that whoever reads it cuts the very same windows.
    xy = detections.xy.astype(np.float32).astype(np.float64)
    shapes = _measure(detections.polygons, slide.mpp)
    fate = assign_fates(slide, xy, shapes["area_um2"], detections.duplicate)
    with atomic(out / f"{entry.slide}.tar") as file:
        crops = write_crops(
            slide,
            entry.slide,
            xy,
            fate,
            settings.codec,
            file,
            cells=settings.cells_per_slide,
            seed=settings.seed,
            outlines=detections.polygons,
            stain=stain,
        )
    columns = {
        "nucleus": np.arange(len(xy), dtype=np.int32),
        "x": xy[:, 0],
        "y": xy[:, 1],
        **shapes,
        **dict(zip(DENSITY_COLUMNS, crops.density.T, strict=True)),
        "label": pa.array(detections.labels or [None] * len(xy), pa.string()),
        "fate": pa.DictionaryArray.from_arrays(pa.array(fate), pa.array(FATES)),
        "offset": pa.array(crops.offset, mask=crops.offset < 0),
        "size": pa.array(crops.size, mask=crops.size < 0),
    }
    described = {
        "slide": entry.slide,
        "project": entry.project,
        "case": entry.case,
        "mpp": slide.mpp,
        "crop_mpp": MPP,
        "segmenter": settings.segmenter,
        "segmenter_version": segmenter_version,
        "seed": settings.seed,
        "stain": stain and {k: np.asarray(v).tolist() for k, v in asdict(stain).items()},
    }
    with atomic(out / f"{entry.slide}.parquet") as file:
        _write_table(file, columns, detections.polygons, described)
    counts = np.bincount(fate, minlength=len(FATES))
    return {
        "detected": len(xy),
        "fates": dict(zip(FATES, counts.tolist(), strict=True)),
        "damaged": slide.damaged,
        "sha256": crops.sha256,
        "bytes": {
            kind: (out / f"{entry.slide}.{kind}").stat().st_size for kind in ("tar", "parquet")
        },
    }


def _write_table(
    file: IO[bytes], columns: dict[str, np.ndarray | pa.Array], polygons: Outlines, described: dict
) -> None:
    """Write the table batch by batch: a million outlines as WKB are 300 MB.

    Args:
        columns: of CELL_COLUMNS but for the polygon; numbers that are NaN become null.
        polygons: of the same nuclei.
        described: of the slide, for the file's metadata.
    """
    schema = CELL_COLUMNS.with_metadata({"lemon": json.dumps(described)})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _batches(len(polygons)) or [slice(0, 0)]:
            part = {
                name: pa.array(values[rows], from_pandas=True) for name, values in columns.items()
            }
            part["polygon"] = polygons.wkb(rows)
            writer.write_table(pa.table(part).select(schema.names).cast(schema))


def _measure(polygons: Outlines, mpp: float) -> dict[str, np.ndarray]:
    """Return the columns of `shape`, NaN where a nucleus has no outline."""
    measured = {name: np.full(len(polygons), np.nan, np.float32) for name in SHAPE_COLUMNS}
    present = polygons.present
    for rows in _batches(len(polygons)):
        for name, values in shape(polygons[rows][present[rows]], mpp).items():
            measured[name][rows][present[rows]] = values
    return measured


def _batches(count: int) -> list[slice]:
    """Cut a number of nuclei into batches that are small as shapely Polygons."""
    return [slice(first, first + BATCH) for first in range(0, count, BATCH)]


def _rays(
    slide: Slide, entry: Entry, settings: Settings, work: Path
) -> tuple[Detections, Stain | None, dict]:
    """Find nuclei with the built-in segmenter."""
    mask, marked = _mask(slide, entry, settings)
    found = segment_by_tiles(slide, rays.segment, settings.seed, mask)
    return *found, {"version": rays.VERSION} | marked


def _network(
    slide: Slide, entry: Entry, settings: Settings, work: Path
) -> tuple[Detections, Stain | None, dict]:
    """Find nuclei with HoverFast's network."""
    from extract.network.segmenter import CORE_PX, NetworkSegmenter  # torch takes two seconds

    assert settings.network and settings.model
    mask, marked = _mask(slide, entry, settings)
    segmenter = NetworkSegmenter(Path(settings.model))
    found = segment_by_tiles(slide, segmenter, settings.seed, mask, CORE_PX)
    rule, weights = settings.network.rule, settings.network.weights[:16]
    version = f"HoverFast's network, rule {rule}, weights {weights}"
    return *found, {"version": version, "file": str(Path(settings.model).absolute())} | marked


def _torchscript(
    slide: Slide, entry: Entry, settings: Settings, work: Path
) -> tuple[Detections, Stain | None, dict]:
    """Find nuclei with a scripted model."""
    from extract.segment.torchscript import ScriptedSegmenter

    assert settings.scripted and settings.model
    mask, marked = _mask(slide, entry, settings)
    segmenter = ScriptedSegmenter(Path(settings.model), settings.scripted)
    found = segment_by_tiles(slide, segmenter, settings.seed, mask)
    version = f"TorchScript, model {settings.scripted.model[:16]}"
    return *found, {"version": version, "file": str(Path(settings.model).absolute())} | marked


def _hoverfast(
    slide: Slide, entry: Entry, settings: Settings, work: Path
) -> tuple[Detections, Stain | None, dict]:
    """Find nuclei with HoverFast's network, or with HoverFast itself in a process of its own."""
    if settings.network:
        return _network(slide, entry, settings, work)
    assert settings.hoverfast and settings.run
    mask, marked = _mask(slide, entry, settings)
    asked, run = settings.hoverfast, settings.run
    found, about = hoverfast.segment(slide, entry, asked, run, mask, work)
    if mask is not None:
        found = found.where(within(mask, found.xy, slide))
    return found, _stain(slide, settings.seed), about | marked


def _mask(slide: Slide, entry: Entry, settings: Settings) -> tuple[np.ndarray | None, dict]:
    """Return a slide's mask, and what to record of it; None and nothing where none are given."""
    mask = find_mask(settings.masks, slide, entry)
    return mask, {} if mask is None else {"marked": judge(mask, slide)}


def _import(
    slide: Slide, entry: Entry, settings: Settings, work: Path
) -> tuple[Detections, Stain | None, dict]:
    """Take the nuclei that another program has segmented."""
    assert settings.imported
    found, about = imported.segment(slide, entry, settings.imported)
    return found, _stain(slide, settings.seed), about


def _stain(slide: Slide, seed: int) -> Stain | None:
    """Estimate the stain of a slide that others have segmented; None: no tissue."""
    _, sampled = find_tissue(slide)
    return estimate_stain(slide, sampled, seed) if sampled.any() else None


# name -> from an open slide, its entry, the settings and a folder for files in between to the
# nuclei, the slide's stain, and what to record of how they came about (version, remarks, …)
SEGMENTERS: dict[
    str, Callable[[Slide, Entry, Settings, Path], tuple[Detections, Stain | None, dict]]
] = {"rays": _rays, "hoverfast": _hoverfast, "torchscript": _torchscript, "import": _import}
