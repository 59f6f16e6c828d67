"""A classifier on a data set's cells, streamed, in the order of its index."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evaluate.classes.apply import Task
from evaluate.classes.calls import NONE, call
from evaluate.classes.counts import Count
from evaluate.shard_embeddings import ROWS, embed_shards
from shards.read import Shards
from shards.schema import MPP
from shards.write import atomic


def classify_shards(folder: Path, task: Task) -> tuple[Path, list[Count]]:
    """Write `<out>/classes/<classifier>/shards--<name>.parquet`, a row a sample.

    Its columns: slide, nucleus, x, y, class (null where it is not called), probability, and the
    probability of each class.

    Returns:
        The file, and the counts by slide; a data set knows no tissue.

    Raises:
        ValueError: the crops are at another scale or smaller than the classifier's window.
    """
    info, classifier = Shards(folder).info, task.classifier
    classifier.check_crops(str(folder), info["patch_px"])
    if info.get("mpp", MPP) != MPP:
        raise ValueError(f"{folder} holds crops at {info['mpp']} µm/px; {classifier.name}: {MPP}")
    array, embeddings = embed_shards(
        task.encoder, folder, task.out, task.overwrite, side=classifier.window_px
    )
    name = re.sub(r"[^\w+=@-]", "_", Path(folder).resolve().name)
    path = task.folder / f"shards--{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str], dict[str, int]] = {}
    with pq.ParquetFile(array.with_suffix(".keys.parquet")) as keys, atomic(path) as file:
        writer, first = None, 0
        for batch in keys.iter_batches(ROWS):
            calls = call(classifier, np.asarray(embeddings[first : first + len(batch)]), task.least)
            first += len(batch)
            slides, projects = (batch[n].to_pylist() for n in ("slide", "project"))
            for slide, project, kind in zip(slides, projects, calls.labels.tolist(), strict=True):
                none = dict.fromkeys((*classifier.classes, NONE), 0)
                found.setdefault((slide, project or ""), none)[kind or NONE] += 1
            columns = {n: batch[n] for n in ("slide", "nucleus", "x", "y")}
            columns["slide"] = pa.array(slides, pa.string())
            table = pa.table(columns | calls.arrow())
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
        if writer:
            writer.close()
    counts = [Count(slide, project, kinds, None) for (slide, project), kinds in found.items()]
    return path, sorted(counts, key=lambda one: one.slide)
