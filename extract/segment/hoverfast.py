"""HoverFast as segmenter: one slide a child process, its output trusted only when it is whole.

HoverFast (choosehappy/HoverFast@b02d82a) ends with code 0 when a slide failed, can leave a writer
that spins over an empty file for ever, names its output by the slide's stem, counts from
OpenSlide's bounds and assumes 0.245 µm/px where OpenSlide gives none; each is met here.
"""

import hashlib
import json
import math
import os
import shlex
import time
from dataclasses import asdict
from glob import escape
from pathlib import Path

import numpy as np

from extract.segment.child import OUTPUT, run_child
from extract.segment.detections import Detections
from extract.segment.imported import bounds, gather
from extract.segment.masks import write_reduced
from extract.segment.nuclei_file import open_nuclei
from extract.segment.options import HoverFast, Run
from extract.segment.place import free_place, own_folder
from extract.slide import Slide
from extract.slides import Entry
from shards.write import atomic

ATTEMPTS = 2
ASSUMED_MPP = 0.245  # by HoverFast, where `openslide.mpp-x` is missing
ASSUMING = "MPP value was not found"  # what it prints then
FULL_MPP = 0.2425  # of what it calls 40X
BORDER_PX = 64  # half its overlap, at its working magnification: nothing there is reported
ERROR = " - ERROR - "  # in a line of its log that tells of a failure


def segment(
    slide: Slide, entry: Entry, asked: HoverFast, run: Run, mask: np.ndarray | None, work: Path
) -> tuple[Detections, dict]:
    """Find a slide's nuclei with HoverFast, or take those it found before.

    Its accepted output stays as `<slide>.json.gz` in `work`, and `<slide>.json` beside it says
    what made it: a rerun with the same model and options reads it.

    Args:
        mask: (H, W) bool over the whole slide, where nuclei are sought; None: HoverFast finds the
            tissue.
        work: folder for what HoverFast writes; made if absent.

    Returns:
        The nuclei, and what to record: version, file, remarks.

    Raises:
        ValueError: the slide's scale is not what HoverFast would take it for; or HoverFast gave no
            usable output in ATTEMPTS attempts (with its own words).
        FileNotFoundError: the command does not exist.
    """
    taken_for = _magnification(slide, asked)
    kept, described = work / f"{entry.slide}.json.gz", work / f"{entry.slide}.json"
    made_by = asdict(asked) | {
        "slide": entry.path.name,
        "bytes": entry.path.stat().st_size,
        "mask": None if mask is None else hashlib.sha256(np.packbits(mask).tobytes()).hexdigest(),
    }
    work.mkdir(parents=True, exist_ok=True)
    remarks = ["read from the output kept of an earlier run"]
    detections = _accept_kept(kept, slide) if _made_by(described) == made_by else None
    if detections is None:
        remarks.clear()
        described.unlink(missing_ok=True)
        detections, facts = _attempt(slide, entry, asked, run, mask, work)
        with atomic(described, "w") as file:
            json.dump({"made_by": made_by, **facts}, file, indent=1)
    facts = json.loads(described.read_text())
    remarks += _remarks(slide, asked, taken_for, facts["assumed_mpp"])
    about = {"version": f"HoverFast, model {asked.model[:16]}", "file": str(kept.absolute())}
    return detections, about | {"remarks": remarks} | facts


def _magnification(slide: Slide, asked: HoverFast) -> float:
    """Return the power HoverFast takes a slide for: 40 times a power of two, by its mpp alone."""
    if "openslide.vendor" not in slide.properties:
        raise ValueError(
            f"HoverFast opens slides by OpenSlide, and OpenSlide does not open {slide.path.name}; "
            "take its network without --hoverfast-command, or --segmenter rays"
        )
    stated = slide.properties.get("openslide.mpp-x")
    seen = float(stated) if stated else ASSUMED_MPP
    taken_for, true = _power(seen), _power(slide.mpp)
    if taken_for != true:
        source = "the file says so" if stated else "what it assumes where OpenSlide gives no mpp"
        raise ValueError(
            f"HoverFast would take it for {taken_for:g}X at {seen:g} µm/px ({source}), but it is "
            f"{slide.mpp:.4g} µm/px by {slide.mpp_source}, {true:g}X; it cannot be told so: use "
            "--segmenter rays for it, or write the scale into the slide"
        )
    if taken_for < asked.magnification:
        raise ValueError(
            f"HoverFast counts {slide.mpp:.4g} µm/px as {taken_for:g}X and refuses to work at "
            f"{asked.magnification:g}X on it; --hoverfast-options '-l {taken_for:g}' lets it"
        )
    return taken_for


def _power(mpp: float) -> float:
    """Return what HoverFast calls the magnification of a scale."""
    return 40 * 2 ** round(math.log2(FULL_MPP / mpp))


def _remarks(slide: Slide, asked: HoverFast, taken_for: float, assumed_mpp: bool) -> list[str]:
    """Say what HoverFast does not see, or sees otherwise than one would think."""
    shrink = taken_for / asked.magnification
    left, top = bounds(slide)
    remarks = [
        f"HoverFast reports no nucleus within {BORDER_PX * shrink:g} px of its top and left border",
        f"it worked at {asked.magnification:g}X on {slide.mpp * shrink:.4g} µm/px, not resampled",
    ]
    if left or top:
        remarks.append(f"its coordinates counted from the slide's bounds at {left}, {top}: added")
    if assumed_mpp:
        remarks.append(
            f"it found no mpp and assumed {ASSUMED_MPP}; the slide is {slide.mpp:.4g} µm/px by "
            f"{slide.mpp_source}: the same magnification, its smallest area is "
            f"{(slide.mpp / ASSUMED_MPP) ** 2:.3g} times that asked for"
        )
    return remarks


def _made_by(described: Path) -> dict | None:
    """Return what made the kept output, or None where that is not known."""
    try:
        return json.loads(described.read_text())["made_by"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None


def _attempt(
    slide: Slide, entry: Entry, asked: HoverFast, run: Run, mask: np.ndarray | None, work: Path
) -> tuple[Detections, dict]:
    """Run HoverFast until its output is usable; return the nuclei and facts of the attempt."""
    reasons, log = [], work / f"{entry.slide}.log"
    log.unlink(missing_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        with free_place(run.at_once), own_folder(work, entry.slide, 2 * run.limit_s) as folder:
            start = time.monotonic()
            made = folder / f"{entry.path.name.rpartition('.')[0]}.json.gz"
            command = _command(slide, asked, run, mask, folder)
            killed = run_child(
                command, folder, run.limit_s, run.stall_s, lambda at=folder: bool(_errors(at))
            )
            try:
                if killed:
                    raise ValueError(killed)
                if not made.is_file():
                    raise ValueError("it ended without output")
                # Its OpenSlide may be older than ours, and know less.
                assumed = ASSUMING in (folder / OUTPUT).read_text(errors="replace")
                if assumed and _power(ASSUMED_MPP) != _power(slide.mpp):
                    raise ValueError(f"it assumed {ASSUMED_MPP} µm/px; it is {slide.mpp:.4g}")
                detections = _accept(made, slide)
            except ValueError as error:
                _keep_log(folder, log)
                said = _errors(folder) or _last_line(folder)
                reasons.append(f"{error}; it said: {said or 'nothing'}")
                continue
            with open(made, "rb") as file:
                os.fsync(file.fileno())
            os.replace(made, work / f"{entry.slide}.json.gz")
            seconds = round(time.monotonic() - start, 1)
            return detections, {"seconds": seconds, "attempts": attempt, "assumed_mpp": assumed}
    same = len(set(reasons)) == 1
    raise ValueError(
        f"HoverFast failed {ATTEMPTS} times: {reasons[0] if same else ' | then: '.join(reasons)} "
        f"(whole log: {log})"
    )


def _command(
    slide: Slide, asked: HoverFast, run: Run, mask: np.ndarray | None, folder: Path
) -> list[str]:
    """Return the command line for one slide."""
    command = [*shlex.split(run.command), "infer_wsi"]
    command += ["-m", run.model, "-o", str(folder), "-l", f"{asked.magnification:g}"]
    command += shlex.split(asked.options) + shlex.split(run.options)
    if mask is not None:
        (folder / "masks").mkdir()
        stem = slide.path.name.rpartition(".")[0]
        write_reduced(mask, slide, folder / "masks" / f"{stem}.png")
        command += ["-b", str(folder / "masks")]
    return [*command, escape(str(slide.path.absolute()))]  # it takes a single path for a pattern


def _accept(path: Path, slide: Slide) -> Detections:
    """Read HoverFast's output to its very end."""
    if not path.stat().st_size:
        raise ValueError("its output is empty (0 bytes)")
    file = open_nuclei(path)
    if file.kind not in ("HoverFast", "JSON without nuclei"):
        raise ValueError(f"{path}: it is {file.kind}, not HoverFast's output")
    return gather(file, 1.0, bounds(slide), slide.mpp)


def _accept_kept(path: Path, slide: Slide) -> Detections | None:
    """Read the output kept of an earlier run; None where it is gone or was damaged since."""
    try:
        return _accept(path, slide)
    except (FileNotFoundError, ValueError):
        return None


def _errors(folder: Path) -> str:
    """Return the last failure HoverFast has logged, or nothing."""
    lines = [
        line
        for path in sorted(folder.glob("HoverFast_log_*.log"))
        for line in path.read_text(errors="replace").splitlines()
        if ERROR in line
    ]
    return lines[-1].rpartition(ERROR)[2].strip() if lines else ""


def _last_line(folder: Path) -> str:
    """Return the last line that HoverFast has printed."""
    lines = (folder / OUTPUT).read_text(errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _keep_log(folder: Path, path: Path) -> None:
    """Keep what HoverFast printed and logged in a failed attempt."""
    with open(path, "ab") as log:
        for part in [folder / OUTPUT, *sorted(folder.glob("HoverFast_log_*.log"))]:
            log.write(part.read_bytes())
