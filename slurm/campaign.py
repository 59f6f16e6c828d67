"""A campaign on disk: its slides and parts, fixed at its start, and what of each stage is done."""

import csv
import json
import secrets
import shlex
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from extract.inputs import changed
from extract.ledger import read_outcome
from shards.json_file import read_json
from shards.mix.gather import is_made
from shards.mix.layout import lay_out
from shards.mix.spill import spill_path
from shards.write import atomic
from slurm.jobs import read_queue
from slurm.settings import Settings, read_settings

ROOT = Path(__file__).resolve().parents[1]
# The jobs of a campaign, each waiting for the one before; the stage each belongs to.
CHAIN = {
    "extract": "extract",  # array, a GPU each
    "admit": "mix",  # counts the failed slides and closes the cohort
    "sort": "mix",  # array: mix's first round
    "write": "mix",  # array: its second
    "join": "mix",
    "train": "train",
    "embed": "evaluate",  # array, checkpoints x benchmarks
    "report": "evaluate",
}
WORK = ("cells", "cohort.json", "shards", "runs", "embedded", "results")  # what jobs leave in OUT
FINAL = ("done", "skipped")  # outcomes after which a slide is not tried again


@dataclass(frozen=True)
class Campaign:
    """What was fixed when it began."""

    settings: Settings
    id: str  # in the names of its jobs
    slides: list[str]  # ids, as extract orders them: part p is slides[p::parts]
    parts: int

    @property
    def out(self) -> Path:
        """The folder."""
        return self.settings.OUT

    @property
    def chain(self) -> list[str]:
        """The jobs that its STAGES ask for."""
        return [job for job, stage in CHAIN.items() if stage in self.settings.STAGES.split()]


def begin(settings: Settings, write: bool, queue: str = "") -> Campaign:
    """Open the campaign in OUT, or begin it: list the slides and cut them into parts.

    The list is kept, so that a part means the same slides whatever comes into the folder later.
    A campaign of other settings of which sbatch has not taken a single job gives way to this one.

    Args:
        settings: checked.
        write: write it down; False: look only.
        queue: what squeue printed.

    Raises:
        ValueError: OUT holds a campaign of other settings; or the slides cannot be listed.
    """
    out, path = settings.OUT, settings.OUT / "campaign.json"
    begun: dict[str, Any] = read_json(path, "name another OUT") if path.exists() else {"fixed": {}}
    now = settings.fixed()
    changed = [f"{k} was {v}, is {now[k]}" for k, v in begun["fixed"].items() if v != now[k]]
    if path.exists() and not (changed and not _under_way(out, begun["id"], queue)):
        if changed:
            raise ValueError(
                f"{out} holds a campaign of other settings ({'; '.join(changed)}): go on with "
                "those, or name another OUT"
            )
        slides = out / "slides.csv"
        campaign = Campaign(settings, begun["id"], _read_ids(slides), begun["parts"])
    else:
        with tempfile.TemporaryDirectory() as folder:
            listed = _list_slides(settings, Path(folder))
            ids = _read_ids(listed)
            parts = -(-len(ids) // settings.SLIDES_PER_TASK)
            campaign = Campaign(settings, secrets.token_hex(3), ids, parts)
            if write:
                out.mkdir(parents=True, exist_ok=True)
                with atomic(out / "slides.csv") as file:
                    file.write(listed.read_bytes())
                with atomic(path, "w") as file:  # last: the commit mark
                    json.dump({"id": campaign.id, "parts": parts, "fixed": settings.fixed()}, file)
    if write:
        (out / "logs").mkdir(exist_ok=True)
        with atomic(out / "settings.json", "w") as file:
            json.dump(asdict(settings), file, indent=1, default=str)
    return campaign


def _under_way(out: Path, campaign: str, queue: str) -> bool:
    """Tell whether any job of a campaign was ever taken: by jobs.tsv, the queue, or its work."""
    submitted = out / "jobs.tsv"
    taken = submitted.exists() and submitted.stat().st_size > 0
    worked = any((out / name).exists() for name in WORK)
    return taken or worked or bool(read_queue(queue, campaign))


def open_campaign(out: Path) -> Campaign:
    """Open a campaign by its folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (out / "campaign.json").exists():
        raise FileNotFoundError(f"{out} holds no campaign; begin one with slurm/submit.sh")
    given = read_json(out / "settings.json", "run slurm/submit.sh again")
    settings = read_settings({name: str(value) for name, value in given.items()})
    begun = read_json(out / "campaign.json", "name another OUT")
    return Campaign(settings, begun["id"], _read_ids(out / "slides.csv"), begun["parts"])


def _list_slides(settings: Settings, folder: Path) -> Path:
    """Have extract list the slides: those to do again of an empty cells folder are all of them.

    Raises:
        ValueError: what extract says of the list or its flags.
    """
    (folder / "none").mkdir()
    command = [sys.executable, ROOT / "extract" / "main.py", "status", folder / "none"]
    command += [settings.SLIDES, *shlex.split(settings.SLIDES_FLAGS), "--out", folder / "list"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 1:  # 1: some are to be done
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise ValueError(f"SLIDES={settings.SLIDES} {settings.SLIDES_FLAGS}: {said[-1]}")
    return folder / "list" / "resubmit.csv"


def check_probe(s: Settings, out: Path) -> None:
    """Have evaluate look at the baselines' names and its flags, days before the report needs them.

    Args:
        s: settings.
        out: any folder.

    Raises:
        ValueError: what evaluate says.
    """
    command = [sys.executable, ROOT / "evaluate" / "main.py", "probe", "--check", "--out", out]
    command += ["--benchmark", *s.BENCHMARKS.split(), "--seed", s.SEED]
    command += ["--encoder", *(s.BASELINES.split() or ["pixels"]), *shlex.split(s.EVALUATE_FLAGS)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ValueError(f"BASELINES={s.BASELINES} EVALUATE_FLAGS={s.EVALUATE_FLAGS}: {said}")


def check_flags(campaign: Campaign, cells: Path) -> None:
    """Have extract check its flags: an empty part, which does nothing.

    Args:
        campaign: its slides are listed.
        cells: any folder; made if absent.

    Raises:
        ValueError: what extract says.
    """
    s, many = campaign.settings, len(campaign.slides)
    command = [sys.executable, ROOT / "extract" / "main.py", s.SLIDES, *shlex.split(s.SLIDES_FLAGS)]
    command += ["--out", cells, "--part", many, "--parts", many + 1, "--workers", 1]
    command += ["--seed", s.SEED, *shlex.split(s.EXTRACT_FLAGS)]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"EXTRACT_FLAGS={s.EXTRACT_FLAGS}: {done.stderr.strip().splitlines()[-1]}")


def outcomes(campaign: Campaign) -> dict[str, dict]:
    """Return each slide's record, with the outcome `missing` where it has none.

    A slide that is done but whose files are not as long as its record says is missing, and so is
    one whose own file, mask or segmentation has changed since.
    """
    cells, found = campaign.out / "cells", {}
    for slide in campaign.slides:
        record = read_outcome(cells, slide) or {"outcome": "missing", "reason": ""}
        if record["outcome"] == "done":
            for kind, size in record["bytes"].items():
                path = cells / f"{slide}.{kind}"
                if not path.is_file() or path.stat().st_size != size:
                    record = {"outcome": "missing", "reason": f"{path} is not whole"}
                    break
        if record["outcome"] in FINAL and (change := changed(record)):
            record = {"outcome": "missing", "reason": change}
        found[slide] = record
    return found


def survey(campaign: Campaign, found: dict[str, dict] | None = None) -> dict[str, dict[str, set]]:
    """Return what is done and what is missing of each job of the chain, from the files alone.

    Args:
        campaign: to look at.
        found: of `outcomes`, if they have been read already.

    Returns:
        job -> {"done": units, "missing": units}; jobs that are no arrays have the unit 0.
    """
    out, s = campaign.out, campaign.settings
    closed = (out / "cohort.json").exists()
    mixed = (out / "shards" / "dataset.json").exists()
    trained = (s.run / f"step-{s.train.steps:07d}.pt").exists()
    mix = set(range(s.MIX_PARTS))
    missing = {
        "extract": set() if closed else _parts_missing(campaign, found or outcomes(campaign)),
        "admit": set() if closed else {0},
        "sort": mix,
        "write": mix,
        "join": {0},
        "train": set() if trained else {0},
        "embed": {n for n, task in enumerate(s.tasks) if not _embedded(out, task)},
        "report": set() if _reported(campaign) else {0},
    }
    if closed and not mixed:
        missing["sort"], missing["write"] = _mix_missing(campaign)
    # What comes later needs nothing earlier any more.
    past = ("extract", "admit", "sort", "write", "join")
    for done, before in ((mixed, past), (trained, (*past, "train"))):
        missing |= {job: set() for job in before} if done else {}
    units = {"extract": set(range(campaign.parts)), "sort": mix, "write": mix}
    units["embed"] = set(range(len(s.tasks)))
    return {
        job: {"missing": missing[job], "done": units.get(job, {0}) - missing[job]}
        for job in campaign.chain
    }


def _parts_missing(campaign: Campaign, found: dict[str, dict]) -> set[int]:
    return {
        number % campaign.parts
        for number, slide in enumerate(campaign.slides)
        if found[slide]["outcome"] not in FINAL
    }


def _mix_missing(campaign: Campaign) -> tuple[set[int], set[int]]:
    """Return the parts of mix's two rounds that have work left."""
    out, s = campaign.out, campaign.settings
    layout = lay_out(out / "cells", None, s.SAMPLES_PER_SHARD, s.SEED, s.MIX_MEMORY)
    shards, work = out / "shards", out / "shards" / ".mix"
    spills = {n for n in range(len(layout.spills)) if not spill_path(work, n).is_file()}
    groups = {
        n
        for n, group in enumerate(layout.groups)
        if not all(is_made(shards, work, i) for i in group)
    }
    return ({n % s.MIX_PARTS for n in spills}, {n % s.MIX_PARTS for n in groups})


def embedding_folder(out: Path, encoder: str, benchmark: str) -> Path:
    """Return where a task of the evaluation's array writes: nobody else does."""
    return out / "embedded" / f"{encoder}--{Path(benchmark).resolve().name}"


def _embedded(out: Path, task: tuple[str, str, str]) -> bool:
    name, _, benchmark = task
    folder = embedding_folder(out, name, benchmark)
    found = folder.glob(f"embeddings/{name}/*.json")  # the manifest, written last
    return any(not path.name.endswith(".part.json") for path in found)


def _reported(campaign: Campaign) -> bool:
    """Tell whether the report is there, and its table holds every encoder on every benchmark."""
    out, s = campaign.out, campaign.settings
    if not s.BENCHMARKS.split():
        return True
    table = out / "results" / "probe.csv"
    if not (out / "report.html").exists() or not table.exists():
        return False
    with open(table, newline="") as file:
        pairs = {(row["encoder"], row["benchmark"]) for row in csv.DictReader(file)}
    return len(pairs) >= len(s.tasks) + len(s.BASELINES.split()) * len(s.BENCHMARKS.split())


def _read_ids(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return [row["slide_id"] for row in csv.DictReader(file)]
