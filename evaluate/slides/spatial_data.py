"""Write a slide's nuclei as SpatialData (a .zarr folder): picture, outlines, table.

The library itself writes all of it; the embeddings stay mapped, the picture comes tile by tile.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from evaluate.slides.annotations import NUCLEUS_UM, THUMBNAIL_PX
from evaluate.slides.extraction import Nuclei
from shards.errors import room

ELEMENTS = {"images": "image", "shapes": "nuclei", "tables": "table"}
PIXELS, MICROMETRES = "global", "um"  # the coordinate systems
TILE_PX = 1024  # side of a piece of the whole picture
SMALLEST_PX = 1024  # longer side from which on the pyramid is not reduced any more


def check_store(path: Path) -> None:
    """Refuse, before any work, what cannot be written.

    Args:
        path: the .zarr folder to be.

    Raises:
        ValueError: spatialdata is not installed.
        FileExistsError: something is there that this program did not write, or somebody has
            added to it.
    """
    if find_spec("spatialdata") is None:
        raise ValueError(f"{path} needs spatialdata: pip install -e '.[spatialdata]'")
    if not path.exists() and not path.is_symlink():
        return
    try:
        about = json.loads((path / "zarr.json").read_bytes())["attributes"]["lemon"]
    except (OSError, ValueError, KeyError, TypeError):
        about = None
    if not isinstance(about, dict) or path.is_symlink():
        raise FileExistsError(
            f"{path} is there already, and not written by this program: name another, or delete it"
        )
    groups = [group for group in path.iterdir() if group.is_dir()]
    names = [f"{group.name}/{part.name}" for group in groups for part in group.iterdir()]
    own = {f"{group}/{name}" for group, name in ELEMENTS.items()}
    added = [name for name in names if name not in own and not name.endswith("/zarr.json")]
    if added:
        raise FileExistsError(
            f"{path} holds {', '.join(sorted(added)[:3])}, which would be lost: name another, or "
            "delete it"
        )


def write_store(
    path: Path, nuclei: Nuclei, table: Any, slide: Path | None, whole_image: bool = False
) -> None:
    """Write a slide's nuclei, whole or not at all; the same program's earlier one is replaced.

    Coordinates are level-0 px of the slide ("global", as in the table's obsm) and µm ("um").

    Args:
        table: AnnData of the N; obs["nucleus"] holds their numbers.
        slide: its file; None: no picture.
        whole_image: store every pixel and a pyramid, instead of a picture of THUMBNAIL_PX.

    Raises:
        FileExistsError: see `check_store`.
        NoRoom: the disk is full.
    """
    import dask.config
    import spatialdata
    from spatialdata.models import TableModel

    check_store(path)
    named, mpp = ELEMENTS, nuclei.record["mpp"]
    table.obs["region"] = _same(named["shapes"], len(nuclei))
    table = TableModel.parse(
        table, region=named["shapes"], region_key="region", instance_key="nucleus"
    )
    store = spatialdata.SpatialData(
        images={named["images"]: _image(slide, mpp, whole_image)} if slide else {},
        shapes={named["shapes"]: _outlines(nuclei, mpp)},
        tables={named["tables"]: table},
        attrs={"lemon": {"slide": nuclei.slide, "mpp": mpp}},
    )
    one_at_a_time = dask.config.set(scheduler="synchronous")  # tiles
    with _folder(path) as folder, one_at_a_time, _unsharded():
        store.write(folder)


def _unsharded() -> Any:
    """Have anndata write as it does, without a warning a column that it may not for ever."""
    from anndata import settings

    known = hasattr(settings, "auto_shard_zarr_v3")
    return settings.override(auto_shard_zarr_v3=False) if known else nullcontext()


def _same(word: str, count: int) -> Any:
    import pandas

    return pandas.Categorical.from_codes(np.zeros(count, np.int8), [word])


def _places(mpp: float, down: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return where an element lies in either coordinate system.

    Args:
        mpp: of level 0, µm/px.
        down: level-0 px to a px of a picture, along x and y; None: the element is in level-0 px.
    """
    from spatialdata.transformations import Affine

    # Here whole numbers are pixels' centres; SpatialData's first pixel spans [0, 1).
    x, y, shift = (1.0, 1.0, 0.0) if down is None else (*down, -0.5)
    axes = {"input_axes": ("x", "y"), "output_axes": ("x", "y")}
    matrix = np.array([[x, 0, shift], [0, y, shift], [0, 0, 1]])
    in_um = np.diag([mpp, mpp, 1]) @ matrix
    return {PIXELS: Affine(matrix, **axes), MICROMETRES: Affine(in_um, **axes)}


def _image(path: Path, mpp: float, whole: bool) -> Any:
    """Return a slide's picture for SpatialData; the whole of it is read only when written."""
    import dask.array
    from dask.array.core import normalize_chunks
    from spatialdata.models import Image2DModel

    from shards.scans.scan import open_scan

    scan = open_scan(path)
    factors = None
    if whole:
        shape = (scan.height, scan.width, 3)
        chunks = normalize_chunks((TILE_PX, TILE_PX, 3), shape)

        def read(block_info: Any) -> np.ndarray:
            (top, bottom), (left, right), _ = block_info[None]["array-location"]
            return scan.region(left, top, right - left, bottom - top)

        pixels = dask.array.map_blocks(
            read, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8)
        )
        longest = max(shape) / SMALLEST_PX
        factors = [2] * max(0, int(np.ceil(np.log2(longest)))) or None
    else:
        pixels = scan.thumbnail(THUMBNAIL_PX)
    down = (scan.width / pixels.shape[1], scan.height / pixels.shape[0])
    return Image2DModel.parse(
        pixels,
        dims=("y", "x", "c"),
        c_coords=["r", "g", "b"],
        scale_factors=factors,
        transformations=_places(mpp, down),
    )


def _outlines(nuclei: Nuclei, mpp: float) -> Any:
    """Return the nuclei's outlines, indexed by their numbers; a circle where there is none."""
    import geopandas
    import pandas
    from spatialdata.models import ShapesModel

    from evaluate.slides.annotations import xy

    shapes: Any = shapely.from_wkb(np.concatenate(list(nuclei.outlines())))
    absent = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    places = xy(nuclei)[absent].astype(np.float64)
    shapes[absent] = shapely.buffer(shapely.points(places), NUCLEUS_UM / 2 / mpp, quad_segs=8)
    index = pandas.Index(nuclei.table["nucleus"].to_numpy())
    frame = geopandas.GeoDataFrame({"outlined": ~absent}, geometry=shapes, index=index)
    return ShapesModel.parse(frame, transformations=_places(mpp))


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    """Name a folder beside `path` that takes its place, synced, when the block ends well.

    An error in the block removes it. After a kill a `.<name>.<random>.tmp` stays; killed between
    two renames, the earlier folder is there under such a name.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = secrets.token_hex(4)
    made, old = (path.with_name(f".{path.name}.{mark}.{kind}") for kind in ("tmp", "old"))
    try:
        with room(path):
            yield made
            _sync(made)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    if path.exists():
        os.rename(path, old)
    os.rename(made, path)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Call fsync on every file and folder within, so that they outlive a loss of power."""
    for place, _, names in os.walk(folder):
        for name in (*names, "."):
            descriptor = os.open(os.path.join(place, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
