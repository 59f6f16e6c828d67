"""A page to look at before weeks of training: what was found on each slide, kept and dropped."""

from collections import Counter
from html import escape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from extract.drawing import (
    COLOURS,
    THUMBNAIL_PX,
    data_uri,
    draw_boxes,
    draw_density,
    draw_outlines,
    lay_out,
)
from extract.inputs import changed
from extract.slide import Slide
from shards.amount import amount
from shards.cells import read_record
from shards.crop import cut, decode, window_px
from shards.folder import visible
from shards.schema import CROP_PX, FATES
from shards.write import atomic

FIELDS = 3  # at full resolution
FIELD_PX = 320  # side of a field, level-0 px; drawn twice as large
KEPT, DROPPED = 48, 16  # crops shown of the kept, and of each dropped kind
COLUMNS = 16  # crops in a row
LISTED = 2000  # rows of the table; of a larger cohort `status` writes the whole
# Nothing is fetched and nothing runs, whatever a label or a file name holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_sheet(cells: Path, out: Path, slides: int, seed: int = 0) -> Path:
    """Write `out/index.html`: one self-contained page, a section a slide.

    Args:
        slides: how many to show; of more that are done, so many are drawn at random.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: no such folder, or no outcome in it.
    """
    paths = visible(cells.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{cells} holds no outcome of extract (<slide>.json)")
    records = [read_record(path) for path in paths]
    done = [record for record in records if record["outcome"] == "done"]
    chosen = np.random.default_rng(seed).permutation(len(done))[:slides]
    shown = [done[i] for i in sorted(chosen.tolist())]
    style = Path(__file__).with_name("contact_sheet.css").read_text(encoding="utf-8")
    title = f"Nuclei of {escape(cells.resolve().name)}"
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "index.html", "w") as file:
        file.write(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{title}</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{style}</style></head><body><main><h1>{title}</h1>"
        )
        file.write(_cohort(records, done, shown))
        for number, record in enumerate(shown):  # only one slide's pictures are in memory
            file.write(_section(cells, record, f"slide-{number}", seed))
        file.write("</main></body></html>\n")
    return out / "index.html"


def _cohort(records: list[dict], done: list[dict], shown: list[dict]) -> str:
    """Say what became of the slides, and list them."""
    fates = Counter()
    for record in done:
        fates.update(record["fates"])
    outcomes = Counter(record["outcome"] for record in records)
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
    parts = [f"<p>{amount(len(records), 'slides')}: {counts}. {sum(fates.values()):,} nuclei.</p>"]
    parts.append(_bar(fates))
    if len(shown) < len(done):
        parts.append(f"<p>Shown below: {len(shown)} of them, drawn at random.</p>")
    anchors = {record["slide"]: f"#slide-{number}" for number, record in enumerate(shown)}
    present = [fate for fate in FATES if fates[fate]]
    names = ("slide", "outcome", *present, "seconds", "reason")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for record in records[:LISTED]:
        name = escape(record["slide"])
        anchor = anchors.get(record["slide"])
        link = f'<a href="{anchor}">{name}</a>' if anchor else name
        known = record.get("fates")
        numbers = "".join(
            f"<td>{known.get(f, 0):,}</td>" if known else "<td></td>" for f in present
        )
        rows.append(
            f"<tr><td>{link}</td><td>{record['outcome']}</td>{numbers}"
            f"<td>{record.get('seconds', '')}</td>"
            f'<td class="text">{escape(record["reason"])}</td></tr>'
        )
    more = len(records) - len(rows)
    parts.append(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f"</table></div>{f'<p>and {more:,} more</p>' if more else ''}"
    )
    return "".join(parts)


def _bar(fates: dict[str, int]) -> str:
    """Draw the fates as a bar, with their counts as its key."""
    total = max(sum(fates.values()), 1)
    pieces, keys = [], []
    for fate in FATES:
        count = fates.get(fate, 0)
        if count:
            colour = "rgb({}, {}, {})".format(*COLOURS[fate])
            pieces.append(f'<b style="width:{count / total:.4%};background:{colour}"></b>')
            keys.append(
                f'<span class="key"><i style="background:{colour}"></i>{count:,} {fate}</span>'
            )
    return f'<div class="bar">{"".join(pieces)}</div><p>{"".join(keys)}</p>'


def _section(cells: Path, record: dict, anchor: str, seed: int) -> str:
    """Show one slide."""
    name = record["slide"]
    rng = np.random.default_rng([seed, *name.encode()])
    columns = ["x", "y", "fate", "offset", "size"]
    table = pq.read_table(cells / f"{name}.parquet", columns=columns)
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], 1).astype(np.float64)
    fate = np.array(table["fate"].cast(pa.string()).to_pylist(), object)
    facts = [record.get("project"), record.get("case"), f"{record['mpp']:.4g} µm/px"]
    by = record.get("versions", {}).get("segmenter")  # with the hash of its weights
    facts += [f"{record['width']:,}x{record['height']:,} px", by or record["settings"]["segmenter"]]
    if record.get("damaged"):
        facts.append(f"{len(record['damaged'])} damaged tiles")
    parts = [
        f'<section id="{anchor}"><h2>{escape(name)}</h2>'
        f"<p>{escape(' · '.join(fact for fact in facts if fact))}</p>{_bar(record['fates'])}"
    ]
    kept = _choose(rng, fate == "kept", KEPT)
    crops = _kept_crops(cells / f"{name}.tar", table, kept)
    slide, excuse = _open(record)
    if slide is None:
        parts.append(f"<p>{escape(excuse)}; only what is in the cells folder is shown.</p>")
    else:
        boxes = _fields(xy, slide, rng)
        parts.append(_overview(slide, xy[fate != "duplicate"], boxes))
        parts.append(_overlays(slide, cells / f"{name}.parquet", boxes))
    parts.append(_crops("kept", record["fates"].get("kept", 0), crops))
    for kind in FATES[1:]:
        dropped = _choose(rng, fate == kind, DROPPED)
        if len(dropped) and slide is not None:
            crops = np.concatenate([_cut(slide, xy[i]) for i in dropped])
            parts.append(_crops(kind, record["fates"][kind], crops))
    return "".join(parts) + "</section>"


def _open(record: dict) -> tuple[Slide | None, str]:
    """Open a slide where it was; else say why not."""
    if change := changed(record):
        return None, change
    try:
        slide = Slide(Path(record["path"]), record["mpp"])
    except (ValueError, OSError) as error:
        return None, str(error)
    if (slide.width, slide.height) != (record["width"], record["height"]):
        return None, f"{record['path']} is another slide now"
    return slide, ""


def _choose(rng: np.random.Generator, among: np.ndarray, count: int) -> np.ndarray:
    """Draw up to `count` of the nuclei that are True, in their order."""
    rows = np.flatnonzero(among)
    return np.sort(rng.permutation(rows)[:count])


def _kept_crops(path: Path, table: pa.Table, rows: np.ndarray) -> np.ndarray:
    """Read crops out of a tar, (N, P, P, 3)."""
    crops = np.empty((len(rows), CROP_PX, CROP_PX, 3), np.uint8)
    with open(path, "rb") as file:
        for crop, row in zip(crops, rows.tolist(), strict=True):
            file.seek(table["offset"][row].as_py())
            crop[:] = decode(file.read(table["size"][row].as_py()))
    return crops


def _fields(
    xy: np.ndarray, slide: Slide, rng: np.random.Generator
) -> list[tuple[int, int, int, int]]:
    """Choose fields that hold nuclei: the fullest, then others at random; (x, y, w, h) each."""
    if not len(xy):
        return []
    width, height = min(FIELD_PX, slide.width), min(FIELD_PX, slide.height)
    across, down = max(slide.width // width, 1), max(slide.height // height, 1)
    column = np.clip(xy[:, 0] // width, 0, across - 1).astype(int)
    row = np.clip(xy[:, 1] // height, 0, down - 1).astype(int)
    squares, counts = np.unique(row * across + column, return_counts=True)
    order = [int(np.argmax(counts)), *rng.permutation(len(squares)).tolist()]
    chosen = [int(squares[i]) for i in dict.fromkeys(order)][:FIELDS]
    return [(s % across * width, s // across * height, width, height) for s in chosen]


def _overview(slide: Slide, xy: np.ndarray, boxes: list[tuple[int, int, int, int]]) -> str:
    """Show the whole slide, and how many nuclei there are where."""
    mpp = slide.mpp * max(slide.width, slide.height) / THUMBNAIL_PX
    thumbnail, _ = slide.thumbnail(max(mpp, slide.mpp))
    density, high = draw_density(thumbnail, xy, slide.width, slide.mpp)
    draw_boxes(thumbnail, boxes, slide.width)
    return (
        f'<div class="row">{_figure(thumbnail, "the slide, and where the fields lie")}'
        f"{_figure(density, f'nuclei detected; yellow: {high:,.0f} per mm² and more')}</div>"
    )


def _overlays(slide: Slide, path: Path, boxes: list[tuple[int, int, int, int]]) -> str:
    """Show fields at full resolution with the outlines of their nuclei."""
    found: list[list] = [[] for _ in boxes]
    # In batches: the outlines of a million nuclei take 0.5 GB.
    for batch in pq.ParquetFile(path).iter_batches(columns=["x", "y", "fate", "polygon"]):
        x, y = batch["x"].to_numpy(), batch["y"].to_numpy()
        for (left, top, width, height), nuclei in zip(boxes, found, strict=True):
            near = (x >= left - 60) & (x < left + width + 60)
            near &= (y >= top - 60) & (y < top + height + 60)
            if near.any():
                nuclei += batch.filter(pa.array(near)).to_pylist()
    figures = []
    for number, ((left, top, width, height), nuclei) in enumerate(
        zip(boxes, found, strict=True), start=1
    ):
        image = draw_outlines(
            slide.read(left, top, width, height),
            (left, top),
            np.array([(n["x"], n["y"]) for n in nuclei]),
            shapely.from_wkb([n["polygon"] for n in nuclei]),
            np.array([n["fate"] for n in nuclei]),
        )
        figures.append(_figure(image, f"field {number}: outlines in the colour of their fate"))
    return f'<div class="row">{"".join(figures)}</div>'


def _cut(slide: Slide, xy: np.ndarray) -> np.ndarray:
    """Cut one window that may leave the slide, (1, P, P, 3)."""
    size = np.array([slide.width, slide.height])
    reach = window_px(slide.mpp, CROP_PX) / 2 + 8
    at = np.clip(xy, 0, size - 1)  # an imported nucleus may lie beyond the slide
    low = np.maximum(np.floor(at - reach), 0).astype(int)
    high = np.minimum(np.ceil(at + reach), size).astype(int)
    region = slide.read(*low.tolist(), *(high - low).tolist())
    return cut(region, np.array([xy - low]), slide.mpp, CROP_PX, fill=255)


def _crops(kind: str, count: int, crops: np.ndarray) -> str:
    """Show crops under the name of their fate."""
    if not len(crops):
        return ""
    image = lay_out(crops, min(COLUMNS, len(crops)))
    shown = f"{len(crops)} of " if len(crops) < count else ""
    return f"<h3>{kind}: {shown}{count:,}</h3>{_figure(image, '', 'crops', alt=f'crops: {kind}')}"


def _figure(image: np.ndarray, caption: str, kind: str = "", alt: str = "") -> str:
    """Return a picture with its caption."""
    text = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure><img class="{kind}" width="{image.shape[1]}" height="{image.shape[0]}" '
        f'alt="{escape(alt or caption)}" src="{data_uri(image)}">{text}</figure>'
    )
