"""Xenium without HEST: 10x's own bundles and their H&E images, expression of genes in cells.

Tested on 10x's own matrix and table of cells without an image, and on small bundles with one.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import KDTree

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.expression import Slide, build
from evaluate.benchmarks.xenium_bundle import Bundle, is_bundle, read_bundle
from shards.folder import visible
from shards.scale import SQUARE, check_mpp

LAYOUT = (
    "a Xenium bundle or several, a folder each: cell_feature_matrix.h5 or .zarr.zip, cells.csv.gz "
    "or .parquet, experiment.xenium, *he_image*.tif, *he_imagealignment.csv"
)
RADIUS_UM = 5.0  # within which a nucleus and a cell's centroid are of one cell


@dataclass(frozen=True, eq=False)
class Joined:
    """Counts of the nuclei that are cells of a bundle."""

    rows: np.ndarray  # (M,) of the nuclei
    genes: tuple[str, ...]
    counts: np.ndarray  # (M, G) float32
    notes: tuple[str, ...]  # what did not join


def matches(path: Path) -> bool:
    """Tell whether a folder holds bundles."""
    return bool(_bundles(path))


def load(
    path: Path,
    view_px: int = 40,
    mpp: float | None = None,
    images: Path | None = None,
    cells: int = 10_000,
    genes: int = 50,
    seed: int = 0,
) -> list[Benchmark]:
    """Cut random cells of each slide and count their transcripts of the genes most expressed.

    As of HEST (paper, A.1): per slide genes are ranked by their mean, ranks are averaged over
    slides, the 50 highest kept; targets are counts, which the probe takes as log(1 + count). The
    centre is the cell's centroid as the bundle's table gives it, the scale its alignment's.

    Args:
        path: a bundle, or a folder of bundles, one a slide.
        mpp: of all H&E images, µm/px; None: by the alignment.
        images: the H&E image of one bundle, or a folder with one per bundle, named like it; None:
            `*he_image*.tif` in the bundle.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file does not open, most cells lie outside the image, or the slides share
            too few genes.
    """
    slides = _slides(path, mpp, images)
    return [build("xenium", slides, view_px, cells, genes, seed, "image")]


def held(path: Path) -> list[str]:
    """Say what bundles hold, without an image; errors as of `read_bundle`."""
    lines = []
    for folder in _bundles(path):
        bundle = read_bundle(folder)
        lines.append(
            f"{_name(folder)}: {len(bundle.ids):,} cells, {len(bundle.genes):,} genes, "
            f"{int(bundle.counts.sum()):,} transcripts; Xenium image at {bundle.pixel_um} µm/px"
        )
        lines += [f"  {note}" for note in bundle.notes]
    return lines


def join(path: Path, slides: np.ndarray, xy: np.ndarray, radius_um: float = RADIUS_UM) -> Joined:
    """Give each nucleus of a slide the counts of the cell whose centroid is nearest.

    A cell goes to the nearest of several nuclei.

    Args:
        path: a bundle's folder or its matrix.
        slides: (N,) str, of one slide.
        xy: (N, 2) float, the nuclei in level-0 px of the H&E.
        radius_um: within which a centroid must lie, µm.

    Raises:
        ValueError: there are nuclei of several slides, or hardly any is a cell of the bundle.
    """
    names = sorted(set(slides.tolist()))
    if len(names) > 1:
        raise ValueError(
            f"{path} is one slide's bundle, the cells are of {len(names)} ({', '.join(names[:3])}, "
            "…); take one slide"
        )
    bundle = read_bundle(path)
    places = bundle.to_um(np.asarray(xy, np.float64))
    nearest = KDTree(bundle.xy_um).query(places, distance_upper_bound=radius_um)
    distance, cell = map(np.asarray, nearest)
    near = np.flatnonzero(np.isfinite(distance))
    order = near[np.argsort(distance[near], kind="stable")]
    rows = np.sort(order[np.unique(cell[order], return_index=True)[1]])
    if len(rows) < 0.01 * min(len(places), len(bundle.ids)) or not len(rows):
        (left, top), (right, bottom) = places.min(axis=0), places.max(axis=0)
        low, high = bundle.xy_um.min(axis=0), bundle.xy_um.max(axis=0)
        raise ValueError(
            f"{path}: {len(rows)} of {len(places)} nuclei lie within {radius_um:g} µm of a cell; "
            f"they reach from {left:.0f}, {top:.0f} to {right:.0f}, {bottom:.0f} µm, its cells "
            f"from {low[0]:.0f}, {low[1]:.0f} to {high[0]:.0f}, {high[1]:.0f}: another slide, or "
            "its *he_imagealignment.csv is not in the bundle"
        )
    joined = bundle.counts[cell[rows]].toarray().astype(np.float32)
    return Joined(
        rows,
        tuple(bundle.genes.tolist()),
        joined,
        (
            *bundle.notes,
            f"{len(rows)} of {len(places)} nuclei joined to a cell within {radius_um:g} µm; "
            f"{len(places) - len(near)} have none so near, {len(near) - len(rows)} are second to "
            f"another nucleus of the same cell; {len(bundle.ids) - len(rows)} of "
            f"{len(bundle.ids)} cells have no nucleus here",
        ),
    )


def _bundles(path: Path) -> list[Path]:
    if is_bundle(path):
        return [path]
    return [p for p in visible(path.iterdir()) if p.is_dir() and is_bundle(p)]


def _name(folder: Path) -> str:
    """Return the name of a folder or link; links often lead to folders of one name, `outs/`."""
    return Path(os.path.abspath(folder)).name


def _slides(path: Path, mpp: float | None, images: Path | None) -> Iterator[Slide]:
    bundles = _bundles(path)
    if images is not None and images.is_file() and len(bundles) > 1:
        raise ValueError(
            f"--images {images} is one image, but {path} holds {len(bundles)} bundles; give a "
            "folder with an image of each one's name"
        )
    for folder in bundles:
        name, bundle = _name(folder), read_bundle(folder)
        largest, least = bundle.sides
        if mpp is None and largest / least - 1 > SQUARE:
            raise ValueError(
                f"{name}: its *he_imagealignment.csv stretches the H&E, {least:.4g} µm/px one way "
                f"and {largest:.4g} the other, and nuclei would be cut out of shape; export it "
                "anew, or give --mpp"
            )
        scale = check_mpp(mpp or bundle.mpp, f"{name} (by its alignment)", "give --mpp")
        image = _image(bundle, name, images)
        yield Slide(name, image, scale, bundle.to_px(), bundle.genes, bundle.counts, bundle.notes)


def _image(bundle: Bundle, name: str, images: Path | None) -> Path:
    if images is not None and images.is_file():
        return images
    if images is not None:
        found = visible(images.glob(f"{name}.*")) or visible(images.glob(f"{name}_he_image*.tif"))
    else:
        found = visible(bundle.path.glob("*he_image*.tif*"))
    if len(found) != 1:
        where = f"{images} ({name}.*)" if images else f"{bundle.path} (*he_image*.tif)"
        raise FileNotFoundError(
            f"bundle {name} needs one H&E image; {len(found)} in {where}; give --images"
        )
    return found[0]
