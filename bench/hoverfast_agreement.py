"""python bench/hoverfast_agreement.py --hoverfast "python -m hoverfast.main" --model M.pth

Find the nuclei of real fields by the real HoverFast and by our network with the same weights: the
share of either's nuclei that the other has within 3 px, and their overlap. By HoverFast's rule
(slopes against the extremes of its tile), in float32 and bfloat16; then by ours (fixed limits). And
our F1 against the fields' own labels by either rule.
"""

import gzip
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import shapely
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.flags import bench_parser
from bench.segment_speed import write_slide
from extract.morphology import outlines
from extract.network.fields import read_fields
from extract.network.inference import Predictor
from extract.network.instances import HOVERFAST, MIN_AREA, instances, nuclei
from extract.network.scores import rates, scores
from extract.network.weights import load_network

TILE = 1024  # HoverFast's, px
FAR = 3.0  # px, beyond which two centroids are of two nuclei
BORDER = (72, 40)  # px left out: HoverFast drops nuclei within 64 px of its tile's border


def run_hoverfast(command: str, model: str, image: np.ndarray, folder: Path) -> np.ndarray:
    """Return the outlines that the real program finds in a field of one tile."""
    slide, out = folder / "field.svs", folder / "out"
    out.mkdir()
    write_slide(slide, image)
    words = ["infer_wsi", str(slide), "-o", f"{out}/", "-m", model, "-n", "1", "-g", "1"]
    subprocess.run([*shlex.split(command), *words], check=True, capture_output=True)
    with gzip.open(out / "field.json.gz", "rt") as file:
        found = [shapely.Polygon(f["geometry"]["coordinates"][0]) for f in json.load(file)]
    # Its outlines run through the centres of border pixels, ours around the pixels.
    return np.asarray(shapely.buffer(np.array(found), 0.5, join_style="mitre"))


def as_read(folder: Path) -> np.ndarray:
    """Return the tile that HoverFast reads of the field's slide: JPEG, white beyond its end."""
    import openslide
    from PIL import Image

    with openslide.OpenSlide(folder / "field.svs") as slide:
        region = slide.read_region((0, 0), 0, (TILE, TILE))
    tile = Image.new("RGB", region.size, "white")
    tile.paste(region, None, region)
    return np.array(tile)


def compare(ours: np.ndarray, theirs: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Match two sets of outlines one to one.

    Args:
        ours: (N,) polygons.
        theirs: (M,) polygons.
        side: of the field, px.

    Returns:
        Counts (matched and all of ours, then of theirs, away from borders), and the IoU of each
        matched pair.
    """
    centres = [shapely.get_coordinates(shapely.centroid(one)) for one in (ours, theirs)]
    distance = cdist(centres[0], centres[1])
    i, j = linear_sum_assignment(np.where(distance <= FAR, distance - 1000, 0))
    near = distance[i, j] <= FAR
    pairs = i[near], j[near]
    counts = []
    for centre, matched in zip(centres, pairs, strict=True):
        inside = ((centre > BORDER[0]) & (centre < side - BORDER[1])).all(axis=1)
        counts += [np.isin(np.flatnonzero(inside), matched).sum(), inside.sum()]
    a, b = ours[pairs[0]], theirs[pairs[1]]
    overlap = shapely.area(shapely.intersection(a, b)) / shapely.area(shapely.union(a, b))
    return np.array(counts), overlap


def main() -> None:
    """Compare and print."""
    parser = bench_parser("hoverfast_agreement", __doc__, "one field", "--data")
    parser.add_argument("--fields", type=int, default=4, help="of --data, the first with labels")
    parser.add_argument("--hoverfast", required=True, help="how the real program is called")
    parser.add_argument("--model", required=True, help="checkpoint, .pth, as HoverFast writes it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    fields = [field for field in read_fields(args.data) if field.has_instances]
    fields = fields[: 1 if args.quick else args.fields]
    ways = {
        "its rule, float32": (torch.float32, lambda o, m: instances(o > 0, m, HOVERFAST)),
        "its rule, bfloat16": (torch.bfloat16, lambda o, m: instances(o > 0, m, HOVERFAST)),
        "our rule, bfloat16": (torch.bfloat16, nuclei),
    }
    predictors = {
        dtype: Predictor(load_network(Path(args.model)), dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    }
    counts = {way: np.zeros(4, int) for way in ways}
    overlaps: dict[str, list[float]] = {way: [] for way in ways}
    against_labels: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for field in fields:
        with tempfile.TemporaryDirectory() as folder:
            theirs = run_hoverfast(args.hoverfast, args.model, field.image, Path(folder))
            tile = as_read(Path(folder))
        predicted = {dtype: predictor(tile) for dtype, predictor in predictors.items()}
        for way, (dtype, divide) in ways.items():
            labels = divide(*predicted[dtype])
            labels[(np.bincount(labels.ravel()) < MIN_AREA)[labels]] = 0
            ours = np.array(outlines(labels))
            # HoverFast's least area is of the outline through pixel centres.
            through = shapely.area(shapely.buffer(ours, -0.5, join_style="mitre"))
            found, overlap = compare(ours[through > MIN_AREA], theirs, len(field.image))
            counts[way] += found
            height, width = field.labels.shape
            against_labels[way].append(scores(labels[:height, :width], field.labels))
            overlaps[way] += overlap.tolist()
            print(f"{field.name[:23]}, {way}: {found[0]} of {found[1]}, {found[2]} of {found[3]}")
    for way, (ours_in, ours_all, theirs_in, theirs_all) in counts.items():
        f1 = rates(against_labels[way])["f1"]
        print(
            f"hoverfast_agreement: {way}: {ours_in / ours_all:.2%} of {ours_all} ours and "
            f"{theirs_in / theirs_all:.2%} of {theirs_all} of HoverFast's within {FAR:g} px; "
            f"mean IoU {np.mean(overlaps[way]):.4f}; F1 of ours {f1:.3f}"
        )


if __name__ == "__main__":
    main()
