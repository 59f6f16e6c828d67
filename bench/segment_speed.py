"""python bench/segment_speed.py [--quick] [--hoverfast "python -m hoverfast.main" --model M.pth]

Extract a slide of real fields with the network and with the classical segmenter, one core each, in
turn: megapixels a second from slide to tar and table, and where the network's time goes. With
--hoverfast, the real program too, on one field of that slide, with the same weights.
"""

import os
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.flags import bench_parser
from extract.network.fields import read_fields

REPEATS = 3
SIDE = 4  # fields of 1000x1000 px along the slide's side


def write_slide(path: Path, image: np.ndarray) -> None:
    """Write an Aperio-style tiled JPEG at 0.25 µm/px."""
    height, width = image.shape[:2]
    about = f"Aperio Image Library\n{width}x{height} (256x256) JPEG/RGB Q=90|AppMag = 40|MPP = 0.25"
    tifffile.imwrite(
        path,
        image,
        tile=(256, 256),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 90},
        description=about,
        metadata=None,
    )


def cpu_seconds(command: list[str]) -> float:
    """Run a program on one core; return the processor time of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def extract(slide: Path, out: Path, segmenter: str, model: str | None) -> float:
    """Extract a slide in this process; return its processor time, start-up apart."""
    import cv2
    import torch

    from extract import job
    from extract.ledger import Settings
    from extract.segment.flags import SHIPPED
    from extract.segment.options import Network
    from extract.slides import Entry

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    out.mkdir(exist_ok=True)
    network = {"network": Network("0"), "model": model or str(SHIPPED)}
    settings = Settings(
        segmenter, "jpeg", 0, None, False, **(network if segmenter == "hoverfast" else {})
    )
    start = time.process_time()
    job.extract_slide(Entry(slide="s", path=slide, project=None, mpp=None), out, settings)
    return time.process_time() - start


def shares(slide: Path, out: Path, model: str | None) -> dict[str, float]:
    """Extract in this process; return each part's share of the processor time."""
    from extract import crops, job, morphology, tiles
    from extract.network import inference, segmenter
    from extract.slide import Slide

    spent: dict[str, float] = defaultdict(float)
    lock = threading.Lock()

    def timed(function, name):
        def wrapper(*args, **kwargs):
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                with lock:
                    spent[name] += time.thread_time() - start

        return wrapper

    Slide.read = timed(Slide.read, "decoding")
    inference.Predictor.__call__ = timed(inference.Predictor.__call__, "network")
    segmenter.nuclei = timed(segmenter.nuclei, "instances")
    tiles.outlines = timed(morphology.outlines, "outlines")
    job.shape = timed(morphology.shape, "morphology")
    job.write_crops = timed(crops.write_crops, "crops, decoding included")
    total = extract(slide, out, "hoverfast", model)
    parts = {name: seconds / total for name, seconds in spent.items()}
    return parts


def main() -> None:
    """Measure and print."""
    parser = bench_parser("segment_speed", __doc__, "a slide of four fields, one repeat", "--data")
    parser.add_argument("--weights", help="other than those of the clone")
    parser.add_argument("--hoverfast", help="how the real program is called")
    parser.add_argument("--model", help="its checkpoint, .pth, of the same weights")
    args = parser.parse_args()
    side = 2 if args.quick else SIDE
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    images = [field.image for field in read_fields(args.data)][: side * side]
    mosaic = np.vstack([np.hstack(images[row * side :][:side]) for row in range(side)])
    megapixels = mosaic.shape[0] * mosaic.shape[1] / 1e6
    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "mosaic.svs"
        write_slide(slide, mosaic)
        seconds: dict[str, list[float]] = {"rays": [], "hoverfast": []}
        for repeat in range(1 if args.quick else REPEATS):
            for segmenter, taken in seconds.items():
                taken.append(
                    extract(slide, Path(folder) / f"{segmenter}-{repeat}", segmenter, args.weights)
                )
        parts = shares(slide, Path(folder) / "cells", args.weights)
        for name, share in sorted(parts.items(), key=lambda item: -item[1]):
            print(f"  {name:26} {share:5.1%}")
        ratios = np.array(seconds["rays"]) / np.array(seconds["hoverfast"])
        ours, plain = (megapixels / np.median(seconds[s]) for s in ("hoverfast", "rays"))
        if args.hoverfast:
            field = Path(folder) / "field.svs"
            write_slide(field, images[0])
            (Path(folder) / "theirs").mkdir()
            words = ["infer_wsi", str(field), "-o", f"{folder}/theirs/", "-m", args.model]
            words += ["-n", "1", "-g", "1"]
            theirs = cpu_seconds([*shlex.split(args.hoverfast), *words])
            print(
                f"segment_speed: {1.0 / theirs:.4f} MP/s by the real HoverFast on a CPU, float16: "
                f"ours is {ours * theirs:.1f} times as fast"
            )
    print(
        f"segment_speed: ratio {np.median(ratios):.2f} ({ratios.min():.2f}–{ratios.max():.2f} of "
        f"{len(ratios)}) ours {ours:.3f} plain {plain:.3f} MP/s a core, CPU s from slide to table, "
        "without start-up"
    )


if __name__ == "__main__":
    main()
