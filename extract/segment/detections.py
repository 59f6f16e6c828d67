"""What a segmenter finds: nuclei as outlines packed in two arrays, a million in about 150 MB.

A million shapely Polygons take 1.2 GB, so they are made only of the nuclei at hand.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import shapely

BATCH = 20_000  # nuclei made into shapely Polygons at once
# What an object is in its file: of no stated type; a nucleus unless there are detections (QuPath's
# annotations); a detection; a cell, a nucleus unless others' nuclei stand apart; a cell's nucleus.
PLAIN, ANNOTATION, DETECTION, WHOLE_CELL, NUCLEUS_OF_CELL = range(5)
_HEADER = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4")])


class Outlines:
    """N nuclei's outer rings, each closed, in level-0 px; a nucleus known as a point has none.

    Indexing makes shapely Polygons of the nuclei asked for, None where there is no outline.

    Attributes:
        points: (K, 2) float32, ring after ring; at 131,072 px it is exact to 1/128 px.
        start: (N + 1,) int64, nucleus i's ring is points[start[i] : start[i + 1]].
    """

    def __init__(self, points: np.ndarray, start: np.ndarray):
        """Take packed rings as they are."""
        self.points, self.start = points, start

    @classmethod
    def none(cls) -> "Outlines":
        """Return those of no nuclei."""
        return cls(np.empty((0, 2), np.float32), np.zeros(1, np.int64))

    @classmethod
    def pack(cls, polygons: np.ndarray) -> "Outlines":
        """Pack shapely Polygons (or None); holes are left out.

        Args:
            polygons: (N,) object.
        """
        points, owner = shapely.get_coordinates(
            shapely.get_exterior_ring(polygons), return_index=True
        )
        lengths = np.bincount(owner, minlength=len(polygons))
        return cls(points.astype(np.float32), _starts(lengths))

    @classmethod
    def pack_rings(cls, points: np.ndarray, lengths: np.ndarray) -> "Outlines":
        """Pack rings that may be open; one of fewer than three corners encloses nothing.

        Args:
            points: (K, 2), ring after ring.
            lengths: (N,) points of each, 0 where a nucleus has no outline.
        """
        start = _starts(lengths)
        some = np.flatnonzero(lengths)
        first, last = start[some], start[some + 1] - 1
        closed = np.zeros(len(lengths), bool)
        closed[some] = (points[first] == points[last]).all(axis=1)
        gap = (lengths > 0) & ~closed
        if gap.any():
            points = np.insert(points, start[1:][gap], points[start[:-1][gap]], axis=0)
            lengths = lengths + gap
        thin = (lengths > 0) & (lengths < 4)
        if thin.any():
            points = points[~np.repeat(thin, lengths)]
        return cls(points.astype(np.float32), _starts(np.where(thin, 0, lengths)))

    @property
    def present(self) -> np.ndarray:
        """Tell which nuclei have an outline, (N,) bool."""
        return np.diff(self.start) > 0

    def __len__(self) -> int:
        return len(self.start) - 1

    def take(self, rows: slice | np.ndarray) -> "Outlines":
        """Return some of the outlines, packed."""
        rows = np.arange(len(self))[rows]
        lengths = np.diff(self.start)[rows]
        starts = _starts(lengths)
        place = np.repeat(self.start[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return Outlines(self.points[place], starts)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        taken = self.take(rows)
        polygons = np.full(len(taken), None, object)
        some = taken.present
        if some.any():
            rings = _starts(np.diff(taken.start)[some])
            polygons[some] = shapely.from_ragged_array(
                shapely.GeometryType.POLYGON,
                taken.points.astype(np.float64),
                (rings, np.arange(len(rings))),
            )
        return polygons

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """Let numpy and shapely take the outlines for an array of Polygons."""
        return self[:]

    def centres(self) -> np.ndarray:
        """Return the outlines' centroids, (N, 2) float64, NaN where there is none.

        The sums of Green's theorem over the edges of each ring, from its first corner; a ring
        without area has the mean of its corners.
        """
        xy = np.full((len(self), 2), np.nan)
        for first in range(0, len(self), BATCH):
            rows = slice(first, first + BATCH)
            some = np.flatnonzero(self.present[rows])
            if len(some):
                xy[rows][some] = self.take(rows)._centroids(some)
        return xy

    def _centroids(self, some: np.ndarray) -> np.ndarray:
        """Return the centroids of those that have an outline, (M, 2)."""
        start = self.start[some]
        lengths = np.diff(self.start)[some]
        corner = self.points[start].astype(np.float64)
        x, y = (self.points - np.repeat(corner, lengths, axis=0)).T
        cross = x[:-1] * y[1:] - x[1:] * y[:-1]
        cross[start[1:] - 1] = 0  # from one ring's end to the next one's begin
        area = np.add.reduceat(cross, start)
        centre = np.stack([np.add.reduceat(cross * (v[:-1] + v[1:]), start) for v in (x, y)], 1)
        flat = area == 0
        centre /= np.where(flat, 1, 3 * area)[:, None]
        if flat.any():
            mean = np.stack([np.add.reduceat(v, start) / lengths for v in (x, y)], 1)
            centre[flat] = mean[flat]
        return corner + centre

    def wkb(self, rows: slice) -> pa.Array:
        """Return some outlines as WKB, null where there is none.

        The binary form of the OGC: byte order, type 3, one ring, its points as doubles.
        """
        chosen = np.arange(len(self))[rows]
        lengths = np.diff(self.start)[rows]
        some = lengths > 0
        sizes = np.where(some, _HEADER.itemsize + 16 * lengths, 0)
        starts = _starts(sizes)
        header = np.zeros(some.sum(), _HEADER)
        header["order"], header["type"], header["rings"] = 1, 3, 1
        header["points"] = lengths[some]
        data = np.empty(starts[-1], np.uint8)
        is_header = np.zeros(len(data), bool)
        is_header[starts[:-1][some][:, None] + np.arange(_HEADER.itemsize)] = True
        data[is_header] = header.view(np.uint8)
        points = (
            self.points[self.start[chosen[0]] : self.start[chosen[-1] + 1]] if len(chosen) else []
        )
        data[~is_header] = np.asarray(points, "<f8").reshape(-1).view(np.uint8)
        buffers = [starts.astype(np.int32), data]
        return pa.Array.from_buffers(
            pa.binary(),
            len(chosen),
            [pa.py_buffer(np.packbits(some, bitorder="little")), *map(pa.py_buffer, buffers)],
        )


class Growing:
    """Arrays laid end to end as they come, without a second copy of them all at any time."""

    def __init__(self, *shape: int, dtype: type):
        """Begin with none, of `shape` each."""
        self._data, self._count = np.empty((1024, *shape), dtype), 0

    def add(self, values: np.ndarray) -> None:
        """Append (K, …) values."""
        end = self._count + len(values)
        if end > len(self._data):  # the system moves its pages, not its bytes
            larger = max(end, len(self._data) * 9 // 8)
            self._data.resize((larger, *self._data.shape[1:]), refcheck=False)
        self._data[self._count : end] = values
        self._count = end

    def whole(self) -> np.ndarray:
        """Return all of them."""
        return self._data[: self._count]


@dataclass(frozen=True)
class Rings:
    """Some nuclei as a file gives them, in its own units.

    Attributes:
        points: (K, 2) float64, ring after ring, open or closed.
        lengths: (N,) points of each nucleus: 1 where the file gives a place without an outline.
        labels: (N,) classes or None.
        kinds: (N,) uint8, PLAIN, ANNOTATION, …; None: all PLAIN.
    """

    points: np.ndarray
    lengths: np.ndarray
    labels: list[str | None]
    kinds: np.ndarray | None = None

    def outlines(self, scale: float) -> tuple[Outlines, np.ndarray]:
        """Return the outlines and the (N, 2) centres, the file's numbers times `scale`."""
        points = self.points if scale == 1 else self.points * scale
        outlines = Outlines.pack_rings(points, self.lengths)
        xy, bare = outlines.centres(), ~outlines.present
        if bare.any():  # the mean of what points there are
            sums = np.add.reduceat(points, _starts(self.lengths)[:-1])
            xy[bare] = sums[bare] / self.lengths[bare, None]
        return outlines, xy


@dataclass(frozen=True)
class Detections:
    """The nuclei of a slide, in level-0 px.

    Attributes:
        polygons: N outlines; none of a nucleus that is known as a point only.
        xy: (N, 2) float64 centres.
        duplicate: (N,) bool, another outline of an earlier nucleus.
        labels: (N,) classes or None, where the segmenter gives them.
    """

    polygons: Outlines
    xy: np.ndarray
    duplicate: np.ndarray
    labels: list[str | None] | None = None

    def where(self, keep: np.ndarray) -> "Detections":
        """Return the nuclei that (N,) bool marks."""
        labels = self.labels and [self.labels[i] for i in np.flatnonzero(keep)]
        return Detections(self.polygons.take(keep), self.xy[keep], self.duplicate[keep], labels)


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Return where each of some consecutive runs begins, and where the last ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
