"""PanNuke (Gamper et al. 2020): 7,901 images of 19 tissues, five kinds of nuclei.

Two distributions: Warwick's folds of .npy files, and RationAI/PanNuke on Hugging Face, Parquet
files of PNG images, the copy that the paper used.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.rule import Rule

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
    path: Path,
    view_px: int = 40,
    mpp: float = 0.25,
    window: str = "60",
    centre: str = "centroid",
) -> list[Benchmark]:
    """Cut every nucleus whose 60-px window lies in its image (paper, A.1); groups are the images.

    Paper leaves open: the centre of a cell; here: the mean of its mask's pixels, as HoverFast's
    centroids are for pretraining. Neither patient nor slide is published.

    Args:
        path: holds one of the two distributions.
        view_px: side of a crop, px at 0.25 µm/px.
        mpp: scale of the images, µm/px.
        window: see `Rule`.
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
            origins={"image": image, "fold": fold, "tissue": tissue},
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
        for fold, images in _npy_folds(path).items():
            yield from _read_npy(path, fold, images)


def _npy_folds(path: Path) -> dict[str, Path]:
    """Return fold -> images.npy; the fold is in the folder's name, never in the order of files."""
    found = {}
    for above in ("", "*/", "*/*/"):  # of the zip files `Fold 1/images/`
        for images in path.glob(f"{above}fold[0-9]/images.npy"):
            found[images.parent.name] = images
    return dict(sorted(found.items()))


def _parquet_folds(path: Path) -> dict[str, list[Path]]:
    """Return fold -> its files in order, from `data/` or the folder itself."""
    found = {}
    for file in sorted(path.glob("fold*.parquet")) + sorted(path.glob("data/fold*.parquet")):
        fold = FOLD.fullmatch(file.stem)
        if fold:
            found.setdefault(fold[1], []).append(file)
    return dict(sorted(found.items()))


def _read_npy(root: Path, fold: str, images_path: Path) -> Iterator[Tile]:
    types_path = images_path.with_name("types.npy")
    masks_paths = [p for p in root.glob("**/masks.npy") if p.parent.name == images_path.parent.name]
    if not masks_paths or not types_path.is_file():
        raise FileNotFoundError(
            f"{images_path} needs types.npy beside it and one {images_path.parent.name}/masks.npy "
            f"below {root}; found {len(masks_paths)} of the latter"
        )
    # Mapped, not read: a fold's masks are several GB of float64.
    images = np.load(images_path, mmap_mode="r")
    masks = np.load(masks_paths[0], mmap_mode="r")
    types = np.load(types_path)
    if not len(images) == len(masks) == len(types) or masks.shape[3:] != (6,):
        raise ValueError(
            f"{fold}: images {images.shape}, masks {masks.shape}, types {types.shape}; expected "
            "(N, 256, 256, 3), (N, 256, 256, 6) and (N,)"
        )
    for number, tissue in enumerate(types.tolist()):
        # The sixth channel is background.
        found = [_instances(masks[number, :, :, channel]) for channel in range(len(CLASSES))]
        yield Tile(
            fold,
            number,
            _tissue(tissue),
            np.asarray(images[number]).astype(np.uint8),
            np.repeat(np.arange(len(CLASSES)), [len(nuclei) for nuclei in found]),
            *_centres([nucleus for nuclei in found for nucleus in nuclei]),
        )


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


def _centres(masks: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
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
    number = 0
    for file in files:
        opened = pq.ParquetFile(file)
        _check_names(file, opened.schema_arrow.metadata or {})
        columns = ["image", "instances", "categories", "tissue"]
        missing = sorted(set(columns) - set(opened.schema_arrow.names))
        if missing:
            raise ValueError(f"{file}: no column {missing[0]!r}; expected {', '.join(columns)}")
        for batch in opened.iter_batches(batch_size=64, columns=columns):
            for row in batch.to_pylist():
                masks = [_png(mask) for mask in row["instances"]]
                if len(masks) != len(row["categories"]):
                    raise ValueError(
                        f"{file}, row {number}: {len(masks)} instances, "
                        f"{len(row['categories'])} categories"
                    )
                yield Tile(
                    fold,
                    number,
                    TISSUES[row["tissue"]],
                    _png(row["image"], "RGB"),
                    np.array(row["categories"], int),
                    *_centres([np.nonzero(mask) for mask in masks]),
                )
                number += 1


def _png(stored: dict, mode: str = "1") -> np.ndarray:
    """Return a struct of `datasets`' Image as pixels, bool for mode 1."""
    with Image.open(io.BytesIO(stored["bytes"])) as image:
        return np.asarray(image.convert(mode))


def _check_names(file: Path, metadata: dict) -> None:
    """See that the classes' and tissues' numbers mean what is written above.

    Raises:
        ValueError: the file's own list is another one.
    """
    features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    categories = features.get("categories") or {}
    categories = categories.get("feature", categories)
    for found, known in ((categories, CLASSES), (features.get("tissue") or {}, TISSUES)):
        names = found.get("names") if isinstance(found, dict) else None
        if names and [_plain(n) for n in names] != [_plain(n) for n in known]:
            raise ValueError(f"{file} lists {', '.join(names)}; expected {', '.join(known)}")
