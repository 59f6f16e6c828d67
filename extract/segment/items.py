"""The objects of a long JSON array, a block at a time, their coordinates as numpy arrays.

Nearly all of a segmentation's text is coordinates. They are cut out of the text before it is
parsed, and all those of a block are converted at once, so that no list is made of any vertex; what
is left is short, and is parsed by orjson. A single feature may hold a whole slide (CellViT and HEST
write one MultiPolygon a class): its coordinates, too, are taken up piece by piece; so are the
`childObjects` of one that holds all others (QuPath's annotations, and its root).
"""

import gc
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import orjson

from extract.segment.foreign import foreign_json

IN_COORDINATES = "in its coordinates"  # where a number that is none is no nucleus' place
AS_TEXT = "its coordinates hold text where numbers belong"
HEADER_BYTES = 1 << 25  # the array of objects must begin within the first 32 MB

CHILD_BYTES = 1 << 20  # from which on an unfinished object's children are handed on before it

# HoVer-Net's `nuc` holds its objects by their numbers.
_ROOT = re.compile(rb'"(?:(?:features|cells|geometries)"\s*:\s*\[|nuc"\s*:\s*\{)')
# What neither is nor holds such an array is a single object, known by how it begins, or several:
# one a line, or each behind a record separator (RFC 8142), which stands nowhere else in JSON.
_SINGLE = re.compile(rb'\{\s*"(?:type"\s*:\s*"(?:Feature|(?:Multi)?Polygon)"|root"\s*:)', re.I)
RECORD = b"\x1e"
_LINES = re.compile(rb"\}[ \t\r]*\n\s*\{")  # no string of JSON holds a line's end
_CHILDREN = re.compile(rb'"child(?:ren|Objects)"\s*:\s*\[')
_OPEN = re.compile(rb'"(?:coordinates|contour)"\s*:\s*(?=\[)')
# A whole array: what follows it is the end of its object or another key.
_ARRAY = re.compile(rb'("(?:coordinates|contour)"\s*:\s*)(\[[^"}]*\])(?=\s*(?:,\s*"|\}))')
_END = re.compile(rb'["}]')
_MARK = re.compile(rb'"(?:coordinates|contour)"\s*:\s*([0-9]+)')
_NUMBER = re.compile(rb"\bNaN\b|\bInfinity\b")  # that Gson and Python write, and JSON does not know
_SPACE = b" \n\r\t"
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STEP = np.zeros(256, np.int8)
_STEP[list(b"{[")], _STEP[list(b"}]")] = 1, -1
_STRUCTURE = _STEP != 0
_STRUCTURE[ord('"')] = True
_COMMAS = bytes.maketrans(b";", b",")


@dataclass(frozen=True)
class Block:
    """Some consecutive objects of the array.

    Attributes:
        header: what stands before the array, e.g. CellViT's type_map.
        items: the objects; the value of each `coordinates` and `contour` is an array's number. The
            array of one that holds very many children may have been in an earlier block.
        base: number of the first array here.
        start: (A + 1,) array a's vertices are xy[start[a - base] : start[a - base + 1]].
        xy: (V, 2) float64.
        closes: (V,) how many brackets close after each vertex: 1 within a ring, 2 at its end, 3 at
            the end of a polygon, 4 at the end of a MultiPolygon.
    """

    header: dict
    items: list[dict]
    base: int
    start: np.ndarray
    xy: np.ndarray
    closes: np.ndarray


def is_json(start: bytes) -> bool:
    """Tell by how it begins whether a text is JSON, or a sequence of its records."""
    return start.lstrip(b"\xef\xbb\xbf" + _SPACE)[:1] in (b"[", b"{", RECORD)


def read_items(chunks: Iterable[bytes]) -> Iterator[Block]:
    """Yield the objects of a JSON array, or of the array `features` or `cells` of an object.

    Or of an object of objects (HoVer-Net's `nuc`); or objects one a line or a record (RFC 8142).

    Args:
        chunks: the text, in pieces of any length.

    Raises:
        ValueError: it is no such JSON, or ends before the array does.
    """
    chunks = _joined(iter(chunks))
    header, text, single = _read_header(chunks)
    chunks = itertools.chain(chunks, [single])
    close = b"}" if header.endswith(b"{") else b"]"
    known = _parse(header + _closing(header), "before its objects")
    known = known if isinstance(known, dict) else {}
    arrays, skeleton, ended = _Arrays(), b"", False
    while not ended:
        chunk = next(chunks, None)
        ended = chunk is None
        taken, text = arrays.take(text + (chunk or b""), ended)
        skeleton += taken
        last, closed = _last_object(skeleton)
        if last:
            inside = skeleton[:last].strip(_SPACE + b",")
            if single:
                inside = _LINES.sub(b"},{", inside)
            found = _parse(header[-1:] + inside + close, "in its objects")
            items = list(found.values() if isinstance(found, dict) else found)
            if set(map(type, items)) != {dict}:
                raise ValueError("its array holds something other than objects")
            skeleton = skeleton[last:]
            yield Block(known, items, *arrays.give(skeleton))
        if len(skeleton) > CHILD_BYTES and not closed:
            begin, end = _last_child(skeleton)
            if end:
                items = _parse(b"[" + skeleton[begin:end] + b"]", "in its objects")
                items = [item for item in items if isinstance(item, dict)]
                skeleton, rest = skeleton[:begin] + b"0", skeleton[end:]  # 0: they have been
                yield Block(known, items, *arrays.give(rest))
                skeleton += rest
        if closed:
            break
    else:
        raise ValueError("it ends in the middle of its objects: it is truncated")
    rest = (skeleton + text + b"".join(chunks)).lstrip(_SPACE)
    if not rest.startswith(close):
        raise ValueError("its array holds something other than objects")
    _parse(header + rest, "after its objects")


class _Arrays:
    """The coordinates cut out of the text and not yet handed on with their objects."""

    def __init__(self):
        self._inside = False  # within an array whose end is still to come
        self._count = 0  # arrays begun
        self._lengths: list[np.ndarray] = []  # vertices of each array
        self._xy: list[np.ndarray] = []
        self._closes: list[np.ndarray] = []

    def take(self, text: bytes, ended: bool) -> tuple[bytes, bytes]:
        """Cut the coordinates out of some text.

        Returns:
            The text with a number in the place of each array, and what must wait for more text.
        """
        pieces, continued = [], self._inside
        if self._inside:
            end = _END.search(text)
            if not end:
                # Up to where the last position seen begins: what comes before is whole.
                whole = text[: max(text.rfind(b"["), 0)].rstrip(b"[" + _SPACE)
                if whole.endswith(b","):
                    self._convert([whole[:-1]], continued)
                    text = text[len(whole) :]
                return b"", text
            if not text[: end.start()].rstrip(_SPACE + b",").endswith(b"]"):
                near = text[max(end.start() - 8, 0) : end.start() + 12].decode(errors="replace")
                raise ValueError(f"{AS_TEXT}: …{near}…")
            cut = text.rfind(b"]", 0, end.start()) + 1
            pieces, text, self._inside = [text[:cut]], text[cut:], False
        *whole, rest = _ARRAY.split(text)
        skeleton = []
        for between, key in zip(whole[0::3], whole[1::3], strict=True):
            skeleton.append(b"%b%b%d" % (between, key, self._count))
            self._count += 1
        self._convert(pieces + whole[2::3], continued)
        opened = _OPEN.search(rest)
        if opened:
            skeleton.append(b"%b%d" % (rest[: opened.end()], self._count))
            self._count, self._inside = self._count + 1, True
            self._lengths.append(np.zeros(1, np.int64))
            return b"".join(skeleton), rest[opened.end() :]
        # A key may be cut in two: it begins after the last comma or brace.
        hold = len(rest) if ended else max(rest.rfind(b"{"), rest.rfind(b","), 0)
        return b"".join([*skeleton, rest[:hold]]), rest[hold:]

    def give(self, rest: bytes) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Hand on all arrays but those in the rest of the text, as base, start, xy, closes."""
        given = self._count - sum(map(len, self._lengths))
        kept = sum(int(mark) >= given for mark in _MARK.findall(rest))
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths])
        xy = np.concatenate([np.empty((0, 2)), *self._xy])
        closes = np.concatenate([np.empty(0, np.int8), *self._closes])
        base, given = self._count - len(lengths), len(lengths) - kept
        start = np.concatenate([[0], np.cumsum(lengths[:given])])
        end = start[-1]
        self._lengths, self._xy, self._closes = [lengths[given:]], [xy[end:]], [closes[end:]]
        return base, start, xy[:end], closes[:end]

    def _convert(self, pieces: list[bytes], continued: bool) -> None:
        """Convert the text of some arrays; the first may continue the last one before."""
        if not pieces:
            return
        text = b";".join(pieces).translate(None, _SPACE)
        raw = np.frombuffer(text, np.uint8)
        close = np.flatnonzero(raw == ord("]"))
        before = raw[close - 1]
        runs = np.flatnonzero(before != ord("]"))  # one a vertex, or an empty pair of brackets
        vertex = before[runs] != ord("[")
        ends = close[runs][vertex]
        closes = np.diff(runs, append=len(close))[vertex].astype(np.int8)
        stops = np.append(np.flatnonzero(raw == ord(";")), len(raw))
        lengths = np.diff(np.searchsorted(ends, stops), prepend=0)
        flat = text.translate(_COMMAS, b"[]")
        if not vertex.all():
            flat = re.sub(rb",+", b",", flat).strip(b",")
        numbers = np.array(_parse(b"[" + flat + b"]", IN_COORDINATES))
        dimensions = len(numbers) // max(len(ends), 1)
        if numbers.dtype.kind not in "if" or len(numbers) != len(ends) * dimensions:
            raise ValueError("its coordinates are not all pairs of numbers")
        if len(ends) and dimensions not in (2, 3):
            raise ValueError(f"its positions have {dimensions} coordinates, not 2 or 3")
        if continued:
            self._lengths[-1][-1] += lengths[0]
            lengths = lengths[1:]
        if len(lengths):
            self._lengths.append(lengths)
        self._xy.append(numbers.reshape(len(ends), -1)[:, :2] if len(ends) else np.empty((0, 2)))
        self._closes.append(closes)


def _joined(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a text; one of records (RFC 8142) as an array."""
    first = next(chunks, b"").lstrip(b"\xef\xbb\xbf" + _SPACE)
    if not first.startswith(RECORD):
        yield first
        yield from chunks
        return
    yield b"[" + first[1:].replace(RECORD, b",")
    for chunk in chunks:
        yield chunk.replace(RECORD, b",")
    yield b"]"


def _read_header(chunks: Iterator[bytes]) -> tuple[bytes, bytes, bytes]:
    """Return what stands before the first object, the text read after it, and what ends it all.

    A single object is taken for an array of one.
    """
    text = b""
    for chunk in chunks:
        text = (text + chunk).lstrip(_SPACE)
        if text.startswith(b"["):
            return text[:1], text[1:], b""
        if _SINGLE.match(text) or _is_lines(text):
            return b"[", text, b"]"
        for found in _ROOT.finditer(text):
            header = text[: found.end()]
            try:
                _parse(header + _closing(header), "")
            except ValueError:
                continue  # the word stands deeper, or in a string
            return header, text[found.end() :], b""
        if len(text) > HEADER_BYTES:
            break
    raise ValueError(_no_objects(text))


def _is_lines(text: bytes) -> bool:
    """Tell whether each of the first lines is an object."""
    first, end, rest = text.partition(b"\n")
    if not end or not rest.lstrip(_SPACE).startswith(b"{") or not first.startswith(b"{"):
        return False
    try:
        _parse(first, "")
    except ValueError:
        return False
    return True


def _no_objects(text: bytes) -> str:
    """Say what JSON is instead of a segmentation."""
    keys = {key.decode() for key in re.findall(rb'"(\w{1,20})"\s*:', text[:HEADER_BYTES])}
    if said := foreign_json(keys):
        return said
    return "it holds no JSON array of objects, nor an object with `features`, `cells` or `nuc`" + (
        f" (it has {', '.join(sorted(keys)[:6])})" if keys else ""
    )


def _closing(header: bytes) -> bytes:
    """Return the brackets that close what the header opened."""
    if header.endswith(b"{"):
        return b"}}"
    return b"]}" if header.startswith(b"{") else b"]"


def _last_object(skeleton: bytes) -> tuple[int, bool]:
    """Return where the last whole object of the array ends, and whether the array ends, too."""
    if b"\\" in skeleton:
        skeleton = _ESCAPED.sub(b"__", skeleton)
    raw = np.frombuffer(skeleton, np.uint8)
    at = np.flatnonzero(_STRUCTURE[raw])
    signs = raw[at]
    inside_string = np.cumsum(signs == ord('"')) % 2 == 1
    step = np.where(inside_string, 0, _STEP[signs])
    depth = np.cumsum(step)
    over = np.flatnonzero(depth < 0)
    stop = over[0] if len(over) else len(at)
    ends = np.flatnonzero((step[:stop] < 0) & (depth[:stop] == 0))
    return (int(at[ends[-1]]) + 1 if len(ends) else 0), bool(len(over))


def _last_child(skeleton: bytes) -> tuple[int, int]:
    """Return where the children of an unfinished object begin, and the last whole one of them ends.

    Of an object within an object within … the outermost that has whole children counts.
    """
    for found in _CHILDREN.finditer(skeleton):
        last, closed = _last_object(skeleton[found.end() :])
        if closed:
            break  # its object is about to end
        if last:
            return found.end(), found.end() + last
    return 0, 0


def _parse(text: bytes, where: str) -> list | dict:
    """Parse JSON, saying where in the file it is wrong."""
    # Thousands of dicts are born and none dies: the collector would look at them all, many times,
    # for a third of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if _NUMBER.search(text) and where != IN_COORDINATES:
            with suppress(json.JSONDecodeError):
                return json.loads(text, strict=False)
        near = text[max(error.pos - 20, 0) : error.pos + 20].decode(errors="replace")
        raise ValueError(f"it is no JSON {where} ({error.msg}) at {near!r}") from error
    finally:
        if collecting:
            gc.enable()
