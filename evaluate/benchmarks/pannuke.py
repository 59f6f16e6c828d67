"""PanNuke (Gamper et al. 2020): 7,901 images of 19 tissues, five kinds of nuclei.

Two distributions: Warwick's folds of .npy files, and RationAI/PanNuke on Hugging Face, Parquet
files of PNG images, the copy that the paper used.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.numpy_file import open_array
from evaluate.benchmarks.rule import Rule
from shards.filetype import check_file, describe
from shards.folder import visible

LAYOUT = "images.npy, masks.npy and types.npy in folders fold1-3, or fold1-3*.parquet"
# In the order of both publishers' numbers. The paper's Table 5 lists them by frequency instead.
CLASSES = ("Neoplastic", "Inflammatory", "Connective", "Dead", "Epithelial")
TISSUES = (  # Hugging Face's names in the order of its numbers
    "Adrenal Gland",
    "Bile Duct",
    "Bladder",
    "Breast",
    "Cervix",
    "Colon",
    "Esophagus",
    "Head & Neck",
    "Kidney",
    "Liver",
    "Lung",
    "Ovarian",
    "Pancreatic",
    "Prostate",
    "Skin",
    "Stomach",
    "Testis",
    "Thyroid",
    "Uterus",
)
ARRAYS = ("images", "masks", "types")  # of Warwick's folds
FOLD = re.compile(r"(fold\d)(\D.*)?")  # fold1, or fold1-00000-of-00001


@dataclass(frozen=True)
class Tile:
    """One image and the nuclei in it; there may be none."""

    fold: str
    number: int  # from 0 within the fold
    tissue: str
    pixels: np.ndarray  # (256, 256, 3) uint8
    classes: np.ndarray  # (N,) int, into CLASSES
    box: np.ndarray  # (N, 2) float, middle of the box, x and y
    centroid: np.ndarray  # (N, 2) float, mean of the mask's pixels


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return bool(_npy_folds(path) or _parquet_folds(path))


def load(
    path: Path, view_px: int = 40, mpp: float = 0.25, window: str = "60", centre: str = "centroid"
) -> list[Benchmark]:
    """Cut every nucleus whose 60-px window lies in its image (paper, A.1); groups are the images.

    Paper leaves open: the centre of a cell; here: the mean of its mask's pixels, as HoverFast's
    centroids are for pretraining. Neither patient nor slide is published.

    Args:
        path: holds one of the two distributions.
        centre: `centroid` or `box`.

    Raises:
        FileNotFoundError: images without their masks or types.
        ValueError: files of different lengths, shapes or orders.
    """
    rule = Rule(mpp, window, centre, view_px)
    crops, classes, where = [], [], []
    tiles = empty = total = 0
    for tile in read(path):
        tiles, empty, total = tiles + 1, empty + (not len(tile.classes)), total + len(tile.classes)
        xy = tile.box if centre == "box" else tile.centroid
        kept = rule.keep(xy, tile.pixels.shape[1], tile.pixels.shape[0])
        crops.append(rule.cut(tile.pixels, xy[kept]))
        classes.append(tile.classes[kept])
        where += [(f"{tile.fold}/{tile.number}", tile.fold, tile.tissue)] * int(kept.sum())
    notes = (
        f"{tiles} images, {empty} of them without nuclei; {rule}",
        f"{total - len(where)} of {total} nuclei dropped: their window leaves the image",
    )
    if not where:
        raise ValueError(f"{path}: no nucleus left ({'; '.join(notes)})")
    folds = sorted({tile for _, tile, _ in where})
    if len(folds) < 3:
        notes += (f"{', '.join(folds)} alone: the publisher has three folds",)
    image, fold, tissue = (np.array(words) for words in zip(*where, strict=True))
    return [
        Benchmark(
            name="pannuke",
            crops=np.concatenate(crops),
            labels=np.array(CLASSES)[np.concatenate(classes)],
            classes=CLASSES,
            groups=image,
            group_kind="image",
            notes=notes,
            batch_variables={"image": image, "fold": fold, "tissue": tissue},
            left_out={"whose window leaves the image": total - len(where)},
        )
    ]


def tried(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return, for each rule that the paper may have used, the counts per class."""
    rules = [Rule(0.25, w, centre, 1) for w in ("59", "60", "61") for centre in ("box", "centroid")]
    counts = {str(rule): np.zeros(len(CLASSES), int) for rule in rules}
    for tile in read(path):
        for rule in rules:
            xy = tile.box if rule.centre == "box" else tile.centroid
            kept = rule.keep(xy, tile.pixels.shape[1], tile.pixels.shape[0])
            counts[str(rule)] += np.bincount(tile.classes[kept], minlength=len(CLASSES))
    return {
        rule: {"pannuke": dict(zip(CLASSES, found.tolist(), strict=True))}
        for rule, found in counts.items()
    }


def read(path: Path) -> Iterator[Tile]:
    """Yield the images of either distribution, fold by fold."""
    if folds := _parquet_folds(path):
        for fold, files in folds.items():
            yield from _read_parquet(fold, files)
    else:
        for fold, files in _npy_folds(path).items():
            yield from _read_npy(path, fold, files)


def _npy_folds(path: Path) -> dict[str, dict[str, Path]]:
    """Return fold -> name of an array -> its file, for every fold that has one of them.

    The fold is in the folder's name, never in the order of files.
    """
    found: dict[str, dict[str, Path]] = {}
    for above in ("", "*/", "*/*/"):  # of the zip files `Fold 1/images/`, linked or not
        for name in ARRAYS:
            for file in visible(path.glob(f"{above}fold[0-9]/{name}.npy")):
                found.setdefault(file.parent.name, {}).setdefault(name, file)
    return dict(sorted(found.items()))


def _parquet_folds(path: Path) -> dict[str, list[Path]]:
    """Return fold -> its files in order, from `data/` or the folder itself."""
    found = {}
    for file in visible(path.glob("fold*.parquet")) + visible(path.glob("data/fold*.parquet")):
        fold = FOLD.fullmatch(file.stem)
        if fold:
            found.setdefault(fold[1], []).append(file)
    return dict(sorted(found.items()))


def _read_npy(path: Path, fold: str, files: dict[str, Path]) -> Iterator[Tile]:
    absent = [name for name in ARRAYS if name not in files]
    if absent:
        images = files.get("images", f"{path}: {fold} has no {fold}/images.npy; it")
        raise FileNotFoundError(
            f"{images} needs types.npy beside it and one {fold}/masks.npy below {path}; found "
            f"are {', '.join(str(file) for file in files.values())}"
        )
    # Mapped, not read: a fold's masks are several GB of float64.
    images = open_array(files["images"], (None, None, None, 3), mapped=True)
    masks = open_array(files["masks"], (None, None, None, 6), mapped=True)
    types = open_array(files["types"], (None,))
    if images.shape[:3] != masks.shape[:3] or len(images) != len(types):
        raise ValueError(
            f"{fold}: images {images.shape}, masks {masks.shape}, types {types.shape}; expected "
            f"(N, 256, 256, 3), (N, 256, 256, 6) and (N,), by {files['images']}"
        )
    for number, tissue in enumerate(types.tolist()):
        pixels = np.asarray(images[number])
        _check_pixels(f"{files['images']}: image {number}", pixels)
        # The sixth channel is background.
        ids = np.asarray(masks[number, :, :, : len(CLASSES)])
        if ids.dtype.kind == "f" and not (np.isfinite(ids) & (ids >= 0)).all():
            raise ValueError(f"{files['masks']}: mask {number} holds what is no id of a nucleus")
        found = [_instances(ids[:, :, channel]) for channel in range(len(CLASSES))]
        yield Tile(
            fold,
            number,
            _tissue(tissue),
            pixels.astype(np.uint8),
            np.repeat(np.arange(len(CLASSES)), [len(nuclei) for nuclei in found]),
            *_centres([nucleus for nuclei in found for nucleus in nuclei]),
        )


def _check_pixels(where: str, pixels: np.ndarray) -> None:
    """Refuse pixels that are not grey levels of 0-255; `where` names them."""
    if pixels.dtype.kind not in "iuf":
        raise ValueError(f"{where} holds {pixels.dtype}, no grey levels")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ValueError(f"{where} holds pixels that are no numbers (NaN or infinite)")
    if pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(f"{where} has grey levels of {pixels.min()} to {pixels.max()}, not 0-255")
    if pixels.dtype.kind == "f" and 0 < pixels.max() <= 1:
        raise ValueError(f"{where} is scaled to 0-1, not to 0-255")


def _instances(channel: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the rows and columns of each nucleus in one class' (H, W) ids.

    An id is unique within its class only, so each channel is taken alone.
    """
    y, x = np.nonzero(channel)
    if not len(y):
        return []
    ids = channel[y, x]
    order = np.argsort(ids, kind="stable")
    ends = np.flatnonzero(np.diff(ids[order])) + 1
    return list(zip(np.split(y[order], ends), np.split(x[order], ends), strict=True))


def _centres(masks: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """Return middles of boxes and centroids, (N, 2) each, x and y; NaN of an empty mask."""
    box, centroid = np.full((len(masks), 2), np.nan), np.full((len(masks), 2), np.nan)
    for i, (y, x) in enumerate(masks):
        if len(y):
            box[i] = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
            centroid[i] = x.mean(), y.mean()
    return box, centroid


def _tissue(name: str) -> str:
    """Return Hugging Face's name for one of types.npy: Adrenal_gland, Bile-duct, HeadNeck."""
    for known in TISSUES:
        if _plain(known) == _plain(str(name)):
            return known
    raise ValueError(f"unknown tissue {name!r}; known are {', '.join(TISSUES)}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _read_parquet(fold: str, files: list[Path]) -> Iterator[Tile]:
    _check_parts(fold, files)
    number = 0
    for file in files:
        check_file(file)
        try:
            opened = pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{file}, {describe(file)}, does not open: {error}") from error
        _check_names(file, opened.schema_arrow.metadata or {})
        columns = ["image", "instances", "categories", "tissue"]
        missing = sorted(set(columns) - set(opened.schema_arrow.names))
        if missing:
            raise ValueError(f"{file}: no column {missing[0]!r}; expected {', '.join(columns)}")
        for batch in opened.iter_batches(batch_size=64, columns=columns):
            for row in batch.to_pylist():
                yield _tile(f"{file}, row {number}", fold, number, row)
                number += 1


def _check_parts(fold: str, files: list[Path]) -> None:
    """See that all parts of a fold are there, by what their names say: fold1-00000-of-00002."""
    parts = [re.search(r"-(\d+)-of-(\d+)$", file.stem) for file in files]
    numbers = {int(part[1]) for part in parts if part}
    for part in filter(None, parts):
        lacking = sorted(set(range(int(part[2]))) - numbers)
        if lacking:
            raise FileNotFoundError(
                f"{fold}: part {lacking[0]} of {int(part[2])} is not in {files[0].parent}"
            )


def _tile(where: str, fold: str, number: int, row: dict) -> Tile:
    """Return a row of the Parquet files; `where` names it in errors."""
    instances, categories = row["instances"] or [], row["categories"] or []
    if len(instances) != len(categories):
        raise ValueError(f"{where}: {len(instances)} instances, {len(categories)} categories")
    for value, names, what in (
        *((kind, CLASSES, "category") for kind in categories), (row["tissue"], TISSUES, "tissue")
    ):  # fmt: skip
        if not isinstance(value, int) or not 0 <= value < len(names):
            raise ValueError(f"{where}: unknown {what} {value!r}; known are 0-{len(names) - 1}")
    pixels = _png(where, row["image"], "RGB")
    masks = [_png(where, mask) for mask in instances]
    if any(mask.shape != pixels.shape[:2] for mask in masks):
        raise ValueError(f"{where}: an instance is not of its image's size {pixels.shape[:2]}")
    return Tile(
        fold,
        number,
        TISSUES[row["tissue"]],
        pixels,
        np.array(categories, int),
        *_centres([np.nonzero(mask) for mask in masks]),
    )


def _png(where: str, stored: dict | None, mode: str = "1") -> np.ndarray:
    """Return a struct of `datasets`' Image as pixels, bool for mode 1."""
    data = (stored or {}).get("bytes")
    if not data:
        raise ValueError(f"{where}: an image without bytes; they lie in files of their own")
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{where}: an image does not open: {error}") from error


def _check_names(file: Path, metadata: dict) -> None:
    """See that the classes' and tissues' numbers mean what is written above."""
    try:
        described = json.loads(metadata.get(b"huggingface", b"{}"))
    except ValueError:  # not what `datasets` writes; the columns are checked all the same
        return
    features = described.get("info", {}).get("features", {})
    categories = features.get("categories") or {}
    categories = categories.get("feature", categories)
    for found, known in ((categories, CLASSES), (features.get("tissue") or {}, TISSUES)):
        names = found.get("names") if isinstance(found, dict) else None
        if names and [_plain(n) for n in names] != [_plain(n) for n in known]:
            raise ValueError(f"{file} lists {', '.join(names)}; expected {', '.join(known)}")
