"""What became of each slide: `cells/<slide>.json`, the commit mark of a slide's files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from extract.inputs import changed
from extract.segment.options import HoverFast, Import, Network, Run, TorchScript
from extract.slides import Entry
from shards.write import atomic

OUTCOMES = ("done", "skipped", "failed")


@dataclass(frozen=True)
class Settings:
    """What determines a slide's files, beside the slide itself."""

    segmenter: str
    codec: str
    seed: int
    cells_per_slide: int | None  # None: all
    any_scale: bool  # take slides that are not 40X
    masks: str | None = None  # where nuclei are sought
    hoverfast: HoverFast | None = None
    network: Network | None = None
    scripted: TorchScript | None = None
    imported: Import | None = None
    # What determines nothing:
    run: Run | None = None  # how HoverFast is run
    model: str | None = None  # where the network's weights or the scripted model lie

    def determining(self) -> dict:
        """Return all that determines a slide's files."""
        settings = asdict(self)
        return {name: settings[name] for name in settings if name not in ("run", "model")}


def record_outcome(
    out: Path, entry: Entry, settings: Settings, outcome: str, reason: str = "", **facts
) -> dict:
    """Write a slide's outcome; what it names must be on disk before.

    Args:
        outcome: one of OUTCOMES.
        reason: in words, for a slide that is not done or has no cells.
        facts: counts by fate, seconds, versions, ….
    """
    assert outcome in OUTCOMES, outcome
    record = {
        "slide": entry.slide,
        "project": entry.project,
        "case": entry.case,
        "path": str(entry.path.absolute()),
        "size": entry.size,
        "given_mpp": entry.mpp,
        "outcome": outcome,
        "reason": reason,
        "settings": settings.determining(),
        **facts,
    }
    with atomic(out / f"{entry.slide}.json", "w") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
    return record


def read_outcome(out: Path, slide: str) -> dict | None:
    """Return a slide's record, or None where it has not ended yet."""
    path = out / f"{slide}.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no outcome of extract ({error}); delete it") from error


def is_finished(out: Path, entry: Entry, settings: Settings) -> bool:
    """Tell whether a rerun may pass a slide over.

    A slide that failed is tried again, and so is one skipped under other settings or another mpp,
    and one whose file, mask or segmentation has changed since.

    Raises:
        ValueError: its cells are on disk but were made with other settings.
    """
    record = read_outcome(out, entry.slide)
    if record is None or record["outcome"] == "failed":
        return False
    was, now = _given(record["settings"]), _given(settings.determining())
    same = was == now and record["given_mpp"] == entry.mpp
    if record["outcome"] == "skipped":
        return same and not changed(record, entry)
    for kind in ("tar", "parquet"):
        path = out / f"{entry.slide}.{kind}"
        size = record.get("bytes", {}).get(kind)  # not in records of early versions
        if not path.is_file() or size not in (None, path.stat().st_size):
            return False
    if not same:
        was["mpp"], now["mpp"] = record["given_mpp"], entry.mpp
        differing = ", ".join(
            f"{k} {was.get(k)} is now {now.get(k)}" for k in was | now if was.get(k) != now.get(k)
        )
        kept = ""
        if was["segmenter"] != now["segmenter"]:
            kept = f", or --segmenter {was['segmenter']} to go on as before"
        raise ValueError(
            f"{out}/{entry.slide} was extracted with other settings ({differing}); "
            f"name another --out, or give --overwrite to extract it anew{kept}"
        )
    return not changed(record, entry)


def _given(settings: dict) -> dict:
    """Return the settings that are given: a record of an early version lacks what came later."""
    return {name: value for name, value in settings.items() if value is not None}
