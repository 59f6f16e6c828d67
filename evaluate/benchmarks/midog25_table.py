"""MIDOG 2025's own table of mitoses, joined with what MIDOG++ says of its cases."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluate.benchmarks.checks import listed
from evaluate.benchmarks.columns import read_columns
from shards.filetype import check_file
from shards.folder import visible

EXPERTS = ("expert1", "expert2", "expert3")
FACTS = ("Tumor", "Scanner", "Origin", "Species")  # of a case
CASES = "datasets_xvalidation.csv"  # of MIDOG++: Slide, and FACTS
BOXES = "MIDOG++.json"
# The table's name of a tumour, and the JSON's where it is another.
ALIASES = {"canine lymphosarcoma": "canine lymphoma"}
PATCH_PX = 128  # side of the publisher's patches, px of the case


@dataclass(frozen=True)
class Mitoses:
    """The rows of the publisher's table, in its order.

    `image` is no key: the publisher's 11,939 rows have 11,936 images, one of them in four rows.
    """

    file: Path
    image: np.ndarray  # (N,) str, the patch's file
    case: np.ndarray  # (N,) str, the MIDOG++ file it is cut from
    xy: np.ndarray  # (N, 2) float, its centre there, px
    label: np.ndarray  # (N,) str, the majority
    votes: np.ndarray  # (3, N) str, '' where an expert was not asked
    facts: dict[str, np.ndarray]  # Tumor, Scanner, … -> (N,) str
    sizes: dict[str, tuple[int, int]]  # case -> width, height; {} without MIDOG++.json
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: np.ndarray) -> "Mitoses":
        """Return the given rows, (M,) integers or (N,) bool."""
        return Mitoses(
            self.file, self.image[rows], self.case[rows], self.xy[rows], self.label[rows],
            self.votes[:, rows], {k: v[rows] for k, v in self.facts.items()}, self.sizes,
            self.notes,
        )  # fmt: skip

    def repeats(self, of_patches: bool) -> np.ndarray:
        """Tell which rows, (N,) bool, repeat an earlier one: its patch, or its place in a case."""
        keys = self.image
        if not of_patches:
            keys = np.array(
                [f"{c} {x:g} {y:g}" for c, (x, y) in zip(self.case, self.xy, strict=True)]
            )
        again = np.ones(len(self), bool)
        again[np.unique(keys, return_index=True)[1]] = False
        return again

    def outvoted(self) -> int:
        """Count rows whose label is not what most of their experts said."""
        atypical, given = (self.votes == "AMF").sum(axis=0), (self.votes != "").sum(axis=0)
        vote = np.where(2 * atypical > given, "AMF", "NMF")
        return int(((vote != self.label) & (given > 0) & (2 * atypical != given)).sum())


def read_mitoses(path: Path, beside: Path | None = None) -> Mitoses:
    """Read the publisher's table, and join tumour, scanner, origin and species by case.

    What the table itself says of a case comes first; what it lacks is taken from MIDOG++'s
    `datasets_xvalidation.csv`, the tumour also from `MIDOG++.json`, where these lie in the folder.

    Args:
        path: the folder, with one MIDOG25*.csv.
        beside: another folder in which MIDOG++'s files may lie.

    Raises:
        ValueError: the table is none, a column is absent, there are several tables, or the JSON
            is another data set's.
    """
    files = visible(path.glob("MIDOG25*.csv"))
    if len(files) != 1:
        raise ValueError(f"{path} holds {len(files)} tables MIDOG25*.csv, one is needed")
    table = read_columns(
        files[0],
        ("image_id", "filename", "majority"),
        ("coordinateX", "coordinateY"),
        (*FACTS, *EXPERTS),
        say_unknown=True,
    )
    folders = [path, *filter(None, [beside]), *(p for p in visible(path.iterdir()) if p.is_dir())]
    facts, notes = {name: table[name] for name in FACTS}, []
    joined = _by_case(_first(folders, CASES), table["filename"])
    boxes = _boxes(_first(folders, BOXES))
    for name in FACTS:
        if (facts[name] == "").any() and name in joined:
            filled = int(((facts[name] == "") & (joined[name] != "")).sum())
            facts[name] = np.where(facts[name] == "", joined[name], facts[name])
            notes.append(f"{name} of {filled} rows joined from {CASES}")
    xy = np.stack([table["coordinateX"], table["coordinateY"]], axis=1)
    sizes = {}
    if boxes:
        sizes = boxes.sizes
        notes += boxes.compare(table["filename"], xy, facts)
    # The breast cases' scanner is misspelt by the publisher.
    facts["Scanner"] = np.char.replace(facts["Scanner"], "Hamammatsu", "Hamamatsu")
    return Mitoses(
        files[0], table["image_id"], table["filename"], xy, table["majority"],
        np.stack([table[expert] for expert in EXPERTS]), facts, sizes, tuple(notes),
    )  # fmt: skip


@dataclass(frozen=True)
class _Boxes:
    """What MIDOG++.json says: sizes and tumours of cases, and where their mitoses are."""

    sizes: dict[str, tuple[int, int]]
    tumors: dict[str, str]
    centres: dict[str, set[tuple[float, float]]]

    def compare(self, case: np.ndarray, xy: np.ndarray, facts: dict[str, np.ndarray]) -> list[str]:
        """Fill in tumours that are not known, and say how the table agrees."""
        foreign = sorted(set(case.tolist()) - set(self.sizes))
        if foreign:
            raise ValueError(f"{BOXES} has no case {listed(foreign)}: another data set's")
        tumors = np.array([self.tumors[c] for c in case.tolist()], np.str_)
        known = facts["Tumor"] != ""
        other = int((tumors[known] != facts["Tumor"][known]).sum())
        facts["Tumor"] = np.where(known, facts["Tumor"], tumors)
        found = sum(
            tuple(place) in self.centres.get(c, ())
            for c, place in zip(case.tolist(), xy.tolist(), strict=True)
        )
        sides = np.array([self.sizes[c] for c in case.tolist()])
        half = PATCH_PX / 2
        leaving = int(((xy < half) | (xy > sides - half)).any(axis=1).sum())
        said = [
            f"{found} of {len(case)} rows are the middle of a box of {BOXES}; the "
            f"{PATCH_PX}-px window of {leaving} leaves the case"
        ]
        if other:
            said.append(f"{other} rows bear another tumour in {BOXES}: the table's is taken")
        return said


def _boxes(file: Path | None) -> _Boxes | None:
    if file is None:
        return None
    check_file(file)
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
        images = {image["id"]: image for image in found["images"]}
        names = {number: image["file_name"] for number, image in images.items()}
        centres: dict[str, set] = {}
        for box in found["annotations"]:
            left, top, right, bottom = box["bbox"]
            of_case = centres.setdefault(names[box["image_id"]], set())
            # The table has whole px, where a middle lies between two either.
            for x in {(left + right) // 2, -(-(left + right) // 2)}:
                of_case.update({(x, (top + bottom) // 2), (x, -(-(top + bottom) // 2))})
        return _Boxes(
            {i["file_name"]: (int(i["width"]), int(i["height"])) for i in images.values()},
            {
                i["file_name"]: str(ALIASES.get(i["tumor_type"], i["tumor_type"]))
                for i in images.values()
            },
            centres,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not MIDOG++'s JSON of images and boxes: {error!r}") from error


def _by_case(file: Path | None, case: np.ndarray) -> dict[str, np.ndarray]:
    """Return FACTS by row, '' where a case is not in the file; {} without it."""
    if file is None:
        return {}
    table = read_columns(file, ("Slide",), optional=FACTS)
    # `Slide` is 1 where the case is 001.tiff.
    at = {f"{number:0>3}.tiff": i for i, number in enumerate(table["Slide"].tolist())}
    rows = [at.get(name, -1) for name in case.tolist()]
    return {
        name: np.array([table[name][row] if row >= 0 else "" for row in rows], np.str_)
        for name in FACTS
    }


def _first(folders: list[Path], name: str) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)
