"""A classifier on every slide of a folder of cells, slide by slide, each a file of its own.

<out>/classes/<classifier>/<slide>.parquet    a row a nucleus: key, x, y, class, probabilities
<out>/classes/<classifier>/<slide>.json       its counts and what they depend on; written last
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluate.classes.calls import NONE, Calls, call
from evaluate.classes.classifier import Classifier
from evaluate.classes.counts import Count, count
from evaluate.endings import Encoder
from evaluate.slides.annotations import about
from evaluate.slides.extraction import Nuclei, open_nuclei
from evaluate.slides.nuclei_embeddings import embed_slide
from evaluate.slides.outputs import check_writable, write_file
from evaluate.slides.parquet import write_parquet
from shards.cells import read_record
from shards.folder import visible
from shards.json_file import read_json
from shards.schema import CROP_PX
from shards.write import write_text

log = logging.getLogger(__name__)

FORMAT = 2  # 1 had '' for null where a nucleus is not called; such slides are done again
AGAIN = "delete it and apply again"
NAMED = 5  # slides without cells that are named


def check(
    classifier: Classifier, encoder: Encoder, nuclei: Nuclei, any_scale: bool = False
) -> None:
    """Refuse another encoder, a slide of another scale, or crops smaller than the window.

    Raises:
        ValueError: by name.
    """
    classifier.check_encoder(encoder)
    classifier.check_scale(nuclei.slide, nuclei.record.get("mpp"), any_scale)
    classifier.check_crops(str(nuclei.folder), CROP_PX)


@dataclass(frozen=True)
class Task:
    """A classifier, and how it is applied."""

    classifier: Classifier
    encoder: Encoder  # that it was fitted on
    out: Path  # the results folder
    least: float = 0.0  # probability below which a nucleus stays without a class
    any_scale: bool = False  # take slides that are not 40X, too
    formats: tuple[str, ...] = ()  # endings of further files, of evaluate/slides/outputs.py
    overwrite: bool = False

    @property
    def folder(self) -> Path:
        """The folder of what is written."""
        return self.out / "classes" / self.classifier.name


def slides_of(cells: Path, classifier: Classifier) -> tuple[list[dict], list[Count]]:
    """Return the records of slides with cells, and the counts of those done without any.

    Slides that are skipped or failed are said.

    Raises:
        FileNotFoundError: no such folder, or no slide in it is done.
    """
    if not cells.is_dir():
        raise FileNotFoundError(f"no folder {cells}; make it with `python extract/main.py`")
    records = [read_record(path) for path in visible(cells.glob("*.json"))]
    done = [record for record in records if record["outcome"] == "done"]
    rest = [record["slide"] for record in records if record["outcome"] != "done"]
    if not done:
        raise FileNotFoundError(f"{cells} holds no slide that is done ({len(rest)} are not)")
    if rest:
        some = ", ".join(rest[:NAMED]) + (" …" if len(rest) > NAMED else "")
        log.info("%s: %d slides are not done, hence not classified: %s", cells, len(rest), some)
    none = dict.fromkeys((*classifier.classes, NONE), 0)
    empty = [
        Count(record["slide"], record["project"] or "", none, None)
        for record in done
        if not record["fates"]["kept"]
    ]
    return [record for record in done if record["fates"]["kept"]], empty


def classify(record: dict, cells: Path, task: Task) -> Count:
    """Classify one slide's nuclei and write what is asked for, unless that was done before.

    Raises:
        ValueError: another encoder, scale or window; or the cells are not whole.
    """
    classifier, encoder = task.classifier, task.encoder
    mark = task.folder / f"{record['slide']}.json"
    depends = {
        "format": FORMAT,
        "classifier_sha256": classifier.sha256,
        "encoder": json.loads(json.dumps(encoder.manifest())),
        "tar_sha256": record["sha256"],
        "min_probability": task.least,
    }
    files = [task.folder / f"{record['slide']}{ending}" for ending in (".parquet", *task.formats)]
    if not task.overwrite and (found := _read(mark, depends)) and all(p.exists() for p in files):
        return found
    for path in files:
        check_writable(path, calls=True)
    nuclei = open_nuclei(cells, record)
    check(classifier, encoder, nuclei, task.any_scale)
    embeddings = embed_slide(encoder, nuclei, task.out, task.overwrite, classifier.window_px)
    calls = call(classifier, embeddings, task.least)
    mark.unlink(missing_ok=True)
    write_parquet(files[0], nuclei, None, about(encoder, nuclei, calls), calls)
    for path in files[1:]:
        write_file(path, encoder, nuclei, embeddings, calls=calls)
    counted = count(nuclei, calls)
    write_text(mark, json.dumps(depends | {"count": asdict(counted)}, indent=1) + "\n")
    return counted


def calls_of(record: dict, cells: Path, task: Task) -> tuple[Nuclei, Calls]:
    """Return a slide's nuclei and what was said of them, from the embeddings on disk."""
    nuclei = open_nuclei(cells, record)
    embeddings = embed_slide(task.encoder, nuclei, task.out, False, task.classifier.window_px)
    return nuclei, call(task.classifier, embeddings, task.least)


def counts_so_far(task: Task) -> list[Count]:
    """Return the counts of all slides that this classifier was applied to, by slide."""
    found = []
    for path in sorted(task.folder.glob("*.json")):
        facts = read_json(path, AGAIN)
        try:
            same = facts["classifier_sha256"] == task.classifier.sha256
            if same and facts["min_probability"] == task.least:
                found.append(Count(**facts["count"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no counts of `apply` ({error!r}); {AGAIN}") from error
    return found


def _read(mark: Path, depends: dict) -> Count | None:
    if not mark.is_file():
        return None
    try:
        facts = json.loads(mark.read_text(encoding="utf-8"))
        counted = Count(**facts.pop("count"))
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    return counted if facts == depends else None
