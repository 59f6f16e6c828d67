"""MIDOG 2025, track 2 (Weiss et al. 2025), training set: atypical (AMF) or normal mitosis (NMF).

Tested on the publisher's own table and MIDOG++.json; on patches and cases made in their layout.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from evaluate.benchmark import Benchmark
from evaluate.benchmarks.checks import Places, find_twins, listed
from evaluate.benchmarks.midog25_table import Mitoses, read_mitoses
from evaluate.benchmarks.picture import black_margins, open_picture, read_pixels
from shards.crop import cut, inside
from shards.folder import visible

LAYOUT = "MIDOG25*.csv (image_id, filename, Scanner, majority, …) and the folder of its images"
CLASSES = ("NMF", "AMF")
# Neither table nor images say their scale, µm/px. Hamamatsu's is deduced: at 0.23 its 128-px
# patches are 118 px at 0.25, and leaving them out gives the paper's Table 8 exactly.
SCANNERS = {"3D Histech": 0.25, "Aperio CS2": 0.25, "Hamamatsu XR": 0.23, "Hamamatsu S360": 0.23}


def matches(path: Path) -> bool:
    """Tell whether a folder looks like this benchmark."""
    return bool(visible(path.glob("MIDOG25*.csv")))


def load(
    path: Path,
    view_px: int = 40,
    mpp: float | None = None,
    duplicates: str = "keep",
    images: Path | None = None,
    scanners: tuple[str, ...] = (),
) -> list[Benchmark]:
    """Cut the middle of every patch; labels are the column `majority`, groups the cases.

    The positive class is NMF: only with it the paper's AUPR of 0.94-0.98 fits a prevalence of
    0.85, and the publisher's notebook maps AMF to 0 and NMF to 1. In 49 rows `majority` is not
    the vote of the three experts; it is taken as it is. The paper's 11,939 are two rows more than
    MIDOG++ has mitotic figures, so duplicates are kept by default.

    Args:
        path: holds the table, and a folder of the patches that it names.
        view_px: side of a crop, px at 0.25 µm/px; what it leaves (patch or case) is dropped.
        mpp: scale of all patches, µm/px; None: by scanner. 0.25 cuts native pixels.
        duplicates: `keep` or `drop` rows that repeat an image (with `images`, a place).
        images: MIDOG++'s folder of cases (`201.tiff`, …), to cut from in place of the patches.
        scanners: take their rows alone; the paper's Table 8 is 3D Histech and Aperio CS2.

    Raises:
        FileNotFoundError: a patch or a case is absent.
        ValueError: a column is absent, a label or a scanner is foreign, a file does not open.
    """
    if duplicates not in ("keep", "drop"):
        raise ValueError(f"duplicates are to be kept or dropped, not {duplicates!r}")
    mitoses = read_mitoses(path, images)
    total = len(mitoses)
    known = sorted(set(mitoses.facts["Scanner"].tolist()))
    unknown = [name for name in known if name not in SCANNERS]
    if unknown and mpp is None:
        raise ValueError(
            f"{mitoses.file}: unknown scanner {unknown[0]!r}; known are {', '.join(SCANNERS)}; "
            "give --mpp"
        )
    if absent := [name for name in scanners if name not in known]:
        raise ValueError(f"no row of scanner {absent[0]!r}; there are {', '.join(known)}")
    if scanners:
        mitoses = mitoses.take(np.isin(mitoses.facts["Scanner"], scanners))
    chosen = len(mitoses)
    again = mitoses.repeats(of_patches=images is None)
    if duplicates == "drop":
        mitoses = mitoses.take(~again)
    if images is None:
        crops, whole, notes = _patches(path, mitoses, view_px, mpp)
        window = "whose window leaves the patch"
    else:
        crops, whole, notes = _cases(images, mitoses, view_px, mpp)
        window = "whose window leaves the case"
    keys = mitoses.image if images is None else mitoses.case
    xy = np.zeros_like(mitoses.xy) if images is None else mitoses.xy
    twins, said = find_twins(
        mitoses.file.name, keys[whole], xy[whole], mitoses.label[whole], refuse=False
    )
    what = "an image" if images is None else "a place"
    notes = [
        notes[0],
        f"{again.sum()} rows repeat {what}: "
        + ("kept, as in the paper's count" if duplicates == "keep" else "dropped"),
        *notes[1:],
        f"{mitoses.outvoted()} rows whose `majority` is not their experts' vote: taken as it is",
        f"{black_margins(crops[whole])} of {whole.sum()} kept with a black margin",
        *(said if duplicates == "keep" else ()),
        *mitoses.notes,
        *(_several_places(mitoses) if images is None else ()),
    ]
    if scanners:
        notes.append(f"{total - chosen} of {total} rows are of other scanners than asked for")
    batch_variables = {"slide": mitoses.case, "scanner": mitoses.facts["Scanner"]}
    batch_variables |= {
        name.lower(): mitoses.facts[name] for name in ("Tumor", "Origin", "Species")
    }
    batch_variables = {kind: words[whole] for kind, words in batch_variables.items()}
    return [
        Benchmark(
            name="midog25",
            crops=crops[whole],
            labels=mitoses.label[whole],
            classes=CLASSES,
            groups=batch_variables["slide"],
            group_kind="slide",
            positive="NMF",
            notes=tuple(notes),
            batch_variables=batch_variables,
            left_out={
                "of other scanners": total - chosen,
                "that repeat another": chosen - len(mitoses),
                window: int((~whole).sum()),
            },
            twins=twins,
        )
    ]


def tried(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return, for each rule that the paper may have used, the counts per class, by the table."""
    mitoses = read_mitoses(path)
    quarter = [name for name, mpp in SCANNERS.items() if mpp == 0.25]
    rules = {
        "all rows": ("midog25", np.ones(len(mitoses), bool)),
        "each place once": ("midog25", ~mitoses.repeats(of_patches=False)),
        f"scanners at 0.25 µm/px ({', '.join(quarter)})": (
            "midog25-128px",
            np.isin(mitoses.facts["Scanner"], quarter),
        ),
    }
    if mitoses.sizes:
        sides = np.array([mitoses.sizes[case] for case in mitoses.case.tolist()])
        whole = ((mitoses.xy >= 64) & (mitoses.xy <= sides - 64)).all(axis=1)
        rules["128 px of the case around the middle of the box"] = ("midog25-128px", whole)
    return {
        rule: {task: {name: int((mitoses.label[rows] == name).sum()) for name in CLASSES}}
        for rule, (task, rows) in rules.items()
    }


def _patches(path: Path, mitoses: Mitoses, view_px: int, mpp: float | None) -> tuple:
    """Return the middles of the patches, (N, view, view, 3), which are whole, and notes."""
    file, count = mitoses.file, len(mitoses)
    folder = _folder(path, file, mitoses.image[0])
    crops = np.zeros((count, view_px, view_px, 3), np.uint8)
    whole, sizes = np.zeros(count, bool), Counter()
    scanners = mitoses.facts["Scanner"]
    for i, name in enumerate(mitoses.image.tolist()):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{file.name} names {name}, but {folder} has none")
        pixels = read_pixels(folder / name, file.name)
        height, width = pixels.shape[:2]
        sizes[f"{width}x{height}"] += 1
        centre = np.array([((width - 1) / 2, (height - 1) / 2)])
        scale = mpp or SCANNERS[scanners[i]]
        if inside(centre, width, height, scale, view_px)[0]:
            crops[i], whole[i] = cut(pixels, centre, scale, view_px)[0], True
    found = ", ".join(f"{s} px ({n})" for s, n in sizes.most_common(3))
    return crops, whole, [
        f"{count} patches of {found}; {_scale(mpp)}",
        f"{(~whole).sum()} of {count} dropped: {view_px} px at 0.25 µm/px leave the patch",
    ]  # fmt: skip


def _cases(folder: Path, mitoses: Mitoses, view_px: int, mpp: float | None) -> tuple:
    """Return windows of MIDOG++'s cases, (N, view, view, 3), which are whole, and notes."""
    names = list(dict.fromkeys(mitoses.case.tolist()))
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{mitoses.file.name} names {len(names)} cases, of which {len(absent)} are not in "
            f"{folder}: {listed(absent)}"
        )
    crops = np.zeros((len(mitoses), view_px, view_px, 3), np.uint8)
    whole = np.zeros(len(mitoses), bool)
    places = Places(mitoses.file.name)
    for name in names:
        rows = np.flatnonzero(mitoses.case == name)
        scale = mpp or SCANNERS[str(mitoses.facts["Scanner"][rows[0]])]
        with open_picture(folder / name, mitoses.file.name) as picture:
            if picture.size != mitoses.sizes.get(name, picture.size):
                raise ValueError(
                    f"{folder / name} is {picture.size} px, by MIDOG++.json {mitoses.sizes[name]}: "
                    "its places are of an image of that size"
                )
            places.look(name, mitoses.xy[rows], *picture.size)
            found, windows = picture.cut(mitoses.xy[rows], scale, view_px)
        crops[rows[found]], whole[rows[found]] = windows, True
    return crops, whole, [
        f"{len(mitoses)} mitoses cut from {len(names)} cases of MIDOG++; {_scale(mpp)}",
        f"{(~whole).sum()} of {len(whole)} dropped: {view_px} px at 0.25 µm/px leave the case",
        *places.notes(),
    ]  # fmt: skip


def _scale(mpp: float | None) -> str:
    return f"all at {mpp} µm/px" if mpp else "scale by scanner: 0.25, Hamamatsu's 0.23 µm/px"


def _several_places(mitoses: Mitoses) -> list[str]:
    """Return a note on patches that stand for several places, of which they show one."""
    places: dict[str, set] = {}
    for image, case, xy in zip(mitoses.image, mitoses.case, mitoses.xy.tolist(), strict=True):
        places.setdefault(str(image), set()).add((str(case), *xy))
    several = [name for name, found in places.items() if len(found) > 1]
    if not several:
        return []
    return [f"{len(several)} images stand for several places, showing one: {listed(several)}"]


def _folder(path: Path, file: Path, first: str) -> Path:
    """Return the folder that holds the first image: beside the table, or one below."""
    for folder in (path, *(p for p in visible(path.iterdir()) if p.is_dir())):
        for inner in (folder, folder / folder.name):  # unpacked into a folder of its own name
            if (inner / first).is_file():
                return inner
    raise FileNotFoundError(
        f"{file} names {first}, but neither {path} nor a folder in it has it; to cut from "
        "MIDOG++'s cases give their folder as --images"
    )
