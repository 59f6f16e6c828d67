"""Whose a row of a table is: a column that says so is honoured, or the table is refused."""

from collections import Counter

import numpy as np
import pyarrow as pa

from extract.segment.naming import belongs
from extract.slides import Entry

# Columns that name a slide: QuPath's Image, and what people call it.
SLIDES = (
    *("image", "image name", "filename", "file", "slide", "slide id", "slide name"),
    *("wsi", "wsi id", "wsi name", "sample", "sample id", "sample name", "image id"),
)
CASES = ("case", "case id", "patient", "patient id")  # who may have several slides
FIELDS = ("fov", "fov name", "fov id", "field of view")  # in which places may count from anew
OWNERS = (*SLIDES, *CASES, *FIELDS)
OBJECTS = ("object type",)  # of QuPath's measurements
NO_NUCLEI = {"tile": "tiles", "tma core": "TMA cores", "image": "rows of whole images"}
NO_NUCLEI |= {"root": "root objects", "root object": "root objects"}
OTHERS = "rows of other slides"
SHOWN = 4  # names in a message


def own_rows(
    table: pa.Table, entry: Entry | None, left_out: Counter[str], remarks: list[str]
) -> np.ndarray:
    """Tell which rows of a table are nuclei of a slide, (N,) bool.

    Args:
        entry: the slide; None: it is not asked whose they are.
        left_out: by reason, how many rows yield no nucleus; counted up.
        remarks: what was passed over; added to.

    Raises:
        ValueError: no row is the slide's, or the columns do not tell which are.
    """
    mine = np.ones(len(table), bool)
    if entry is not None and len(table):
        mine = _of_slide(table, entry, left_out, remarks)
    if "object type" in table.schema.names:
        kinds = np.array([(_text(v) or "").lower() for v in table["object type"].to_pylist()])
        for kind, reason in NO_NUCLEI.items():
            left_out[reason] += int((mine & (kinds == kind)).sum())
            mine &= kinds != kind
        annotations = mine & (kinds == "annotation")
        if annotations.any() and (mine & ~annotations).any():
            left_out["annotations among detections"] += int(annotations.sum())
            mine &= ~annotations
    return mine


def _of_slide(
    table: pa.Table, entry: Entry, left_out: Counter[str], remarks: list[str]
) -> np.ndarray:
    """Tell which rows are a slide's."""
    names = table.schema.names
    slides = [name for name in SLIDES if name in names]
    for column in slides or [name for name in (*CASES, *FIELDS) if name in names]:
        codes, values = _values(table, column)
        own = np.array([belongs(value, entry) for value in values], bool)
        if not own.any():
            continue
        series = [v for v, o in zip(values, own, strict=True) if o and " - " in v]
        if len(series) > 1:
            raise ValueError(
                f"its column {column} names {len(series)} images of this slide "
                f"({_some(series)}): leave the rows of one"
            )
        mine = own[codes]
        for other in slides:
            if other != column and other.startswith(("image", "file")):
                _refuse_parts(table, other, mine, entry)
        if not mine.all():
            left_out[OTHERS] += int((~mine).sum())
            others = [v for v, o in zip(values, own, strict=True) if not o]
            remarks.append(
                f"{(~mine).sum()} of {len(mine)} rows are other slides' by column {column} "
                f"({_some(others)}) and were passed over"
            )
        return mine
    if not slides:
        cases = [name for name in CASES if name in names]
        fields = [name for name in FIELDS if name in names]
        if cases and len(_values(table, cases[0])[1]) == 1 and not fields:
            return np.ones(len(table), bool)  # one patient's: the file's name says of which slide
        if not cases and not fields:
            return np.ones(len(table), bool)
    column = (slides or [n for n in (*CASES, *FIELDS) if n in names])[0]
    values = _values(table, column)[1]
    cure = (
        "give the slide's file name or id in it, or leave the column out"
        if slides
        else "that does not say which slide's a row is: add a column slide, with places in the "
        "slide's frame, or leave the column out"
    )
    raise ValueError(
        f"none of its {len(table)} rows is of slide {entry.slide} ({entry.path.name}): its column "
        f"{column} names {_some(values)}; {cure}"
    )


def _refuse_parts(table: pa.Table, column: str, mine: np.ndarray, entry: Entry) -> None:
    """Refuse a slide's rows that name several images within it."""
    codes, values = _values(table, column)
    inside = [values[code] for code in np.unique(codes[mine])]
    if len(inside) > 1 and not any(belongs(value, entry) for value in inside):
        raise ValueError(
            f"the rows of slide {entry.slide} name {len(inside)} images in column {column} "
            f"({_some(inside)}), from whose corners their places may count; give places in the "
            "slide's frame and leave that column out"
        )


def _values(table: pa.Table, column: str) -> tuple[np.ndarray, list[str]]:
    """Return (N,) codes of a column, and the text that each stands for; '' is none."""
    encoded = table[column].combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode("encode")
    values = [_text(value) or "" for value in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(len(values)).to_numpy()
    return codes, [*values, ""] if len(codes) and codes.max() == len(values) else values


def _text(value: object) -> str | None:
    """Return a cell as a name: 7.0, which pandas makes of 7, is 7."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _some(names: list[str]) -> str:
    """Return the first of some names."""
    shown = ", ".join(name or "(none)" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
