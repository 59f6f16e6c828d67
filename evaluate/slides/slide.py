"""Embed every nucleus of a slide, in memory that does not grow with their number."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from evaluate.endings import Encoder
from evaluate.slides.extraction import MORPHOLOGY, Nuclei
from shards.schema import MPP, VIEW_PX
from shards.write import atomic, write_text

FORMAT = 1  # of the manifest
THUMBNAIL_PX = 2000  # longer side of the picture that goes along
NUCLEUS_UM = 8.0  # diameter at which squidpy draws a nucleus
BLOCK = 4096  # crops in memory at once, twice: a block is read while another is embedded


def embed_slide(
    encoder: Encoder, nuclei: Nuclei, work: Path, overwrite: bool = False
) -> np.ndarray:
    """Return the nuclei's embeddings as a file mapped into memory, made unless it is there.

    `<work>/embeddings/<encoder>/<slide>.npy`, rows in the order of the slide's table, and a
    manifest, written last, of what they depend on (the encoder, the tar's digest).

    Args:
        encoder: of evaluate/encoders.py.
        nuclei: N of a slide.
        work: the folder of the files in between.
        overwrite: embed anew whatever is there.

    Returns:
        (N, D) float32, read-only.

    Raises:
        ValueError: the encoder does not fit the crops, or a crop is broken.
    """
    array = Path(work) / "embeddings" / encoder.name / f"{nuclei.slide}.npy"
    manifest = array.with_suffix(".json")
    wanted = {
        "format": FORMAT,
        "encoder": encoder.manifest(),
        "slide": nuclei.slide,
        "nuclei": len(nuclei),
        "tar_sha256": nuclei.record["sha256"],
    }
    if overwrite or not _same(array, manifest, wanted):
        array.parent.mkdir(parents=True, exist_ok=True)
        manifest.unlink(missing_ok=True)
        with atomic(array) as file:
            _write(encoder, nuclei, file.fileno())
        write_text(manifest, json.dumps(wanted, indent=1) + "\n")
    return np.load(array, mmap_mode="r")


def about(encoder: Encoder, nuclei: Nuclei) -> dict:
    """Return what a reader of the embeddings should know, as JSON."""
    record = nuclei.record
    return {
        "slide": nuclei.slide,
        "project": record["project"],
        "path": record.get("path"),
        "mpp": nuclei.described.get("mpp"),  # of the slide
        "crop_mpp": MPP,  # what the encoder was shown
        "coordinates": "x, y of the nucleus' centre, level-0 px of the slide's full frame",
        "nuclei": {"detected": sum(record["fates"].values()), **record["fates"]},
        "segmenter": nuclei.described.get("segmenter"),
        "segmenter_version": nuclei.described.get("segmenter_version"),
        "stain": nuclei.described.get("stain"),
        "encoder": encoder.manifest(),
        "tar_sha256": record["sha256"],
        "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        "extract_versions": record.get("versions", {}),
    }


def xy(nuclei: Nuclei) -> np.ndarray:
    """Return the nuclei's centres, (N, 2) float32, level-0 px."""
    return np.stack([nuclei.table[axis].to_numpy() for axis in "xy"], axis=1)


def labels(nuclei: Nuclei) -> np.ndarray:
    """Return what the segmenter says each nucleus is, (N,) str, '' where it says nothing."""
    return np.array(pc.fill_null(nuclei.table["label"], "").to_pylist(), np.str_)


def morphology(nuclei: Nuclei) -> dict[str, np.ndarray]:
    """Return what the extract stage measured, name -> (N,) float32, NaN where unknown."""
    table = nuclei.table
    return {
        name: table[name].to_numpy().astype(np.float32, copy=False)
        for name in MORPHOLOGY
        if table[name].null_count < len(table)
    }


def columns(nuclei: Nuclei) -> dict[str, np.ndarray]:
    """Return obs: nucleus, slide, project, label and the morphology."""
    named = {"slide": nuclei.slide, "project": nuclei.record["project"] or ""}
    return {
        "nucleus": nuclei.table["nucleus"].to_numpy(),
        **{name: np.full(len(nuclei), text) for name, text in named.items()},
        "label": labels(nuclei),
        **morphology(nuclei),
    }


def spatial(nuclei: Nuclei) -> dict:
    """Return what squidpy and scanpy draw cells over: the slide's thumbnail and its scale.

    Nothing where the slide's file is no longer where it was extracted from.
    """
    import openslide

    path = nuclei.record.get("path")
    if path is None or not Path(path).is_file():
        return {}
    with openslide.OpenSlide(path) as slide:
        image = np.asarray(slide.get_thumbnail((THUMBNAIL_PX, THUMBNAIL_PX)).convert("RGB"))
        scale = image.shape[1] / slide.dimensions[0]
    diameter = NUCLEUS_UM / (nuclei.described.get("mpp") or MPP)
    factors = {"tissue_hires_scalef": scale, "spot_diameter_fullres": diameter}
    return {nuclei.slide: {"images": {"hires": image}, "scalefactors": factors}}


def write_parquet(path: Path, nuclei: Nuclei, vectors: np.ndarray, described: dict) -> None:
    """Write key, position, obs and `embedding` (a list of D float32), a block at a time.

    The file's metadata holds `described` as JSON under the key "lemon".
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    width, named = vectors.shape[1], columns(nuclei)
    places = dict(zip("xy", xy(nuclei).T, strict=True))
    schema, writer = None, None
    with atomic(path) as file:
        for first in range(0, len(nuclei), BLOCK):
            rows = slice(first, first + BLOCK)
            values = {"key": nuclei.keys(rows)}
            values |= {name: column[rows] for name, column in (places | named).items()}
            part = {name: pa.array(column, from_pandas=True) for name, column in values.items()}
            flat = pa.array(np.ascontiguousarray(vectors[rows]).reshape(-1))
            part["embedding"] = pa.FixedSizeListArray.from_arrays(flat, width)
            table = pa.table(part)
            if writer is None:
                schema = table.schema.with_metadata({"lemon": json.dumps(described)})
                writer = pq.ParquetWriter(file, schema, compression="zstd")
            writer.write_table(table.cast(schema))
        writer.close()


def _write(encoder: Encoder, nuclei: Nuclei, descriptor: int) -> None:
    """Write the .npy, reading the crops in the order of the tar."""
    order = np.argsort(nuclei.table["offset"].to_numpy(), kind="stable")
    blocks = [order[i : i + BLOCK] for i in range(0, len(order), BLOCK)]
    # An encoder of wider crops gets them; all others see what they see in a benchmark.
    side = max(VIEW_PX, encoder.input_px or 0)
    start, bar = None, tqdm(total=len(order), desc="nuclei", unit="nuclei", disable=None)
    with ThreadPoolExecutor(1) as reader, bar:
        coming = reader.submit(nuclei.crops, blocks[0], side)
        for i, rows in enumerate(blocks):
            crops = coming.result()
            if i + 1 < len(blocks):
                coming = reader.submit(nuclei.crops, blocks[i + 1], side)
            vectors = np.ascontiguousarray(encoder.embed(crops), np.float32)  # (B, D)
            stride = vectors[0].nbytes
            if start is None:
                start = _write_header(descriptor, (len(order), vectors.shape[1]))
            # Not through a mapping: its pages would count as this process's memory.
            for row, vector in zip(rows.tolist(), vectors, strict=True):
                os.pwrite(descriptor, vector, start + row * stride)
            bar.update(len(rows))


def _write_header(descriptor: int, shape: tuple[int, int]) -> int:
    """Write the head of a .npy of float32; return where its data begin."""
    with open(os.dup(descriptor), "wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()


def _same(array: Path, manifest: Path, wanted: dict) -> bool:
    """Tell whether the embeddings on disk are the wanted ones."""
    if not array.is_file() or not manifest.is_file():
        return False
    try:
        found = np.load(array, mmap_mode="r")
        return json.loads(manifest.read_text()) == wanted and len(found) == wanted["nuclei"]
    except (ValueError, EOFError):  # cut short by something else than us
        return False
