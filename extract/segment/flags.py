"""The flags of the segmenters."""

import argparse
import hashlib
import re
import shlex
from pathlib import Path

from extract.segment.options import (
    NORMALISATIONS,
    ORIGINS,
    HoverFast,
    Import,
    Network,
    Run,
    TorchScript,
)
from shards.command_line import at_least, positive
from shards.scale import check_mpp

SPEED = {"-n", "--n_process", "-g", "--batch_gpu", "-r", "--batch_mem"}
MAGNIFICATION = {"-l", "--magnification"}
SHIPPED = Path(__file__).parents[1] / "network" / "nuclei.safetensors"
OURS = {"-o", "--outdir", "-m", "--model_path", "-b", "--binmask_dir"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every `--segmenter`."""
    parser.add_argument_group("any --segmenter but import").add_argument(
        "--masks",
        help="where nuclei are sought: a folder with an image a slide, or a pattern, e.g. "
        "'histoqc/*/*_mask_use.png' (default: in all tissue)",
    )
    hoverfast = parser.add_argument_group("--segmenter hoverfast")
    hoverfast.add_argument(
        "--hoverfast-model",
        help="a checkpoint of HoverFast's (.pth) or weights of train-segmenter (.safetensors) "
        "(default: those that come with the clone)",
    )
    hoverfast.add_argument(
        "--hoverfast-command",
        help="run HoverFast itself, a slide a process, in place of its network in process, e.g. "
        "'apptainer exec --nv hoverfast.sif HoverFast'",
    )
    hoverfast.add_argument(
        "--hoverfast-options",
        default="",
        help="further options of `HoverFast infer_wsi`, e.g. '-n 4 -g 8' or '-l 20'",
    )
    hoverfast.add_argument(
        "--hoverfast-limit", type=positive, default=Run.limit_s, help="seconds a slide may take"
    )
    hoverfast.add_argument(
        "--hoverfast-stall",
        type=positive,
        default=Run.stall_s,
        help="seconds it may go without CPU time and output",
    )
    hoverfast.add_argument(
        "--hoverfast-at-once",
        type=at_least(1),
        default=1,
        help="slides it works on at once; the other --workers cut crops meanwhile",
    )
    scripted = parser.add_argument_group(
        "--segmenter torchscript (a model is code: trust it first)"
    )
    scripted.add_argument("--model", help="the model, a file of torch.jit.save, e.g. instanseg.pt")
    scripted.add_argument(
        "--model-mpp", type=float, default=0.5, help="µm/px of the images that it takes"
    )
    scripted.add_argument(
        "--model-normalise",
        choices=NORMALISATIONS,
        default=NORMALISATIONS[0],
        help="each channel from its 0.1 to its 99.9 percentile, by 255, or not at all",
    )
    imported = parser.add_argument_group("--segmenter import")
    imported.add_argument(
        "--from",
        dest="source",
        help="segmentations: a folder, a pattern, e.g. 'cellvit/*/cells.json', or one slide's file",
    )
    imported.add_argument(
        "--from-mpp",
        type=positive,
        help="µm in a unit of their coordinates: 1 where they are µm (default: px of level 0)",
    )
    imported.add_argument(
        "--from-origin",
        choices=ORIGINS,
        help="where they count from, if the slide has bounds and the file does not tell",
    )


def read_flags(a: argparse.Namespace) -> dict:
    """Return the fields of Settings that the flags of `add_flags` determine.

    Raises:
        ValueError: flags that do not go together.
    """
    if a.segmenter == "import":
        if not a.source:
            raise ValueError("--segmenter import needs --from: the segmentations' folder")
        if a.masks:
            raise ValueError(
                "--masks are for segmenters; an imported segmentation is taken as it is"
            )
        return {"imported": Import(a.source, a.from_mpp, a.from_origin)}
    if a.source or a.from_mpp or a.from_origin:
        raise ValueError("--from, --from-mpp and --from-origin belong to --segmenter import")
    if a.model and a.segmenter != "torchscript":
        raise ValueError("--model belongs to --segmenter torchscript; see --hoverfast-model")
    if a.segmenter == "torchscript":
        return {"masks": a.masks, **_scripted(a)}
    if a.segmenter != "hoverfast":
        return {"masks": a.masks}
    if not a.hoverfast_command:
        if a.hoverfast_options:
            raise ValueError(
                "--hoverfast-options are for HoverFast itself: give --hoverfast-command"
            )
        path = Path(a.hoverfast_model or SHIPPED)
        if not path.is_file():
            raise ValueError(f"--hoverfast-model {path}: there is no such file")
        return {"masks": a.masks, "network": Network(_fingerprint(str(path))), "model": str(path)}
    if not a.hoverfast_model:
        raise ValueError("--hoverfast-command needs --hoverfast-model: HoverFast's .pth")
    magnification, others, speed = _split(a.hoverfast_options)
    return {
        "masks": a.masks,
        "hoverfast": HoverFast(_fingerprint(a.hoverfast_model), magnification, others),
        "run": Run(
            a.hoverfast_command,
            a.hoverfast_model,
            speed,
            a.hoverfast_limit,
            a.hoverfast_stall,
            a.hoverfast_at_once,
        ),
    }


def _scripted(a: argparse.Namespace) -> dict:
    """Return the settings of a scripted model."""
    if not a.model:
        raise ValueError("--segmenter torchscript needs --model: a file of torch.jit.save")
    path = Path(a.model)
    if not path.is_file():
        raise ValueError(
            f"--model {a.model}: there is no such file; models are not fetched from a URL"
        )
    check_mpp(a.model_mpp, f"with --model-mpp {a.model_mpp:g} models", "give the model's own")
    asked = TorchScript(_fingerprint(a.model), a.model_mpp, a.model_normalise)
    return {"scripted": asked, "model": str(path)}


def _split(given: str) -> tuple[float, str, str]:
    """Tell HoverFast's magnification, its options of consequence, and those of its speed apart."""
    magnification, others, speed = HoverFast.magnification, [], []
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise ValueError(f"--hoverfast-options {given!r}: {error}") from error
    if len(words) % 2:
        raise ValueError(
            "--hoverfast-options are pairs of an option and its value, e.g. '-n 4 -g 8'"
        )
    for option, value in zip(words[0::2], words[1::2], strict=True):
        if option in OURS or not option.startswith("-"):
            raise ValueError(f"--hoverfast-options: {option} is not for you to set; we set it")
        if option in MAGNIFICATION:
            if not re.fullmatch(r"\d+(\.\d+)?", value) or not float(value):
                raise ValueError(f"--hoverfast-options: {option} {value} is no magnification")
            magnification = float(value)
        else:
            (speed if option in SPEED else others).extend([option, value])
    return magnification, shlex.join(others), shlex.join(speed)


def _fingerprint(model: str) -> str:
    """Return a checkpoint's sha256, or its path where it lies in a container."""
    path = Path(model)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else model
