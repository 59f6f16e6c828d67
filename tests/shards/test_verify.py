"""Verify and info; every fault that a data set on disk can have, each named."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from shards.crop import encode
from shards.dataset import read_info
from shards.mix.mix import mix
from shards.read import Shards
from shards.schema import key
from shards.verify import verify
from shards.write import TarWriter


@pytest.fixture
def copy(shards_folder, tmp_path) -> Path:
    """Shards to be damaged."""
    return Path(shutil.copytree(shards_folder, tmp_path / "copy"))


def name_of(folder: Path, row: int) -> str:
    """Return the member of a row."""
    found = Shards(folder).index.slice(row, 1).to_pylist()[0]
    return f"{key(found['slide'], found['nucleus'])}.jpg"


def change(path: Path, at: int, data: bytes) -> None:
    """Write some bytes into a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])


def rebuild(folder: Path, edit) -> None:
    """Write shard 1 anew from its edited members, with description and index that agree."""
    path = folder / "train-000001.tar"
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]
    file = io.BytesIO()
    tar = TarWriter(file)
    offsets = {name: (tar.add(name, data), len(data)) for name, data in edit(members)}
    sha256 = tar.close()
    path.write_bytes(file.getvalue())
    info = json.loads((folder / "dataset.json").read_text())
    info["shards"][1] |= {"bytes": path.stat().st_size, "sha256": sha256}
    (folder / "dataset.json").write_text(json.dumps(info))
    index = pq.read_table(folder / "index.parquet")
    columns = index.to_pydict()
    for row in np.flatnonzero(index["shard"].to_numpy() == 1).tolist():
        name = f"{key(columns['slide'][row], columns['nucleus'][row])}.jpg"
        columns["offset"][row], columns["size"][row] = offsets[name]
    pq.write_table(index.from_pydict(columns, schema=index.schema), folder / "index.parquet")


def test_whole_shards_have_no_fault(shards_folder, run_stage):
    assert list(verify(shards_folder)) == []
    done = run_stage("shards/main.py", "verify", shards_folder)
    assert (done.returncode, done.stdout) == (0, f"{shards_folder}: whole\n")


def test_a_flipped_byte_is_found_at_its_crop(copy, run_stage):
    row = 57
    offset = Shards(copy).index["offset"][row].as_py()
    name = name_of(copy, row)
    path = copy / "train-000001.tar"
    change(path, offset + 300, bytes([path.read_bytes()[offset + 300] ^ 16]))
    done = run_stage("shards/main.py", "verify", copy)
    assert done.returncode == 1
    assert "train-000001.tar: its sha256 is" in done.stdout
    assert f"train-000001.tar: the bytes of {name} at {offset} changed" in done.stdout
    others = [line for line in done.stdout.splitlines()[:-1] if name not in line]
    assert len(others) == 1


def test_a_truncated_tar(copy):
    path = copy / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-5000])
    faults = "\n".join(verify(copy))
    assert "cut short" in faults
    assert "lies beyond the end" in faults
    with pytest.raises(ValueError, match=r"train-000001\.tar: \d+, expected \d+ bytes"):
        Shards(copy)
    path.write_bytes(b"")
    assert "0 bytes are no tar" in "\n".join(verify(copy))


def test_a_missing_shard_and_one_too_many(copy):
    (copy / "train-000001.tar").rename(copy / "other.tar")
    faults = list(verify(copy))
    assert f"{copy / 'train-000001.tar'}: missing" in faults
    assert f"{copy / 'other.tar'}: not of this data set; delete it" in faults
    with pytest.raises(ValueError, match=r"train-000001\.tar: no file"):
        Shards(copy)


def test_the_index_of_another_data_set(copy, cells, tmp_path):
    """The same cells in another order: as many rows, every offset in its shard."""
    mix(cells, tmp_path / "other", 50, seed=1)
    ours = pq.read_metadata(copy / "index.parquet").metadata[b"lemon"]
    shutil.copy(tmp_path / "other/index.parquet", copy)
    for use in (Shards, lambda folder: list(verify(folder))):
        with pytest.raises(ValueError, match=r"other cells or settings.*two data sets"):
            use(copy)
    index = pq.read_table(copy / "index.parquet")
    pq.write_table(index.replace_schema_metadata({b"lemon": ours}), copy / "index.parquet")
    assert "the index says" in "\n".join(verify(copy))  # even where it claims to be of this one


def test_the_shards_of_another_data_set(copy, cells, tmp_path):
    mix(cells, tmp_path / "other", 50, seed=1)
    shutil.copy(tmp_path / "other/train-000000.tar", copy)
    assert "the index says" in "\n".join(verify(copy))


def test_a_pickle_hidden_as_a_member(copy, tmp_path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    evil = pickle.dumps(Harm())
    row = 55
    name = name_of(copy, row)
    with tarfile.open(copy / "train-000000.tar", "a") as tar:
        member = tarfile.TarInfo("PAINTED-0001_0000001.pyd")
        member.size = len(evil)
        tar.addfile(member, io.BytesIO(evil))
    rebuild(copy, lambda members: [(n, evil if n == name else d) for n, d in members])
    faults = "\n".join(verify(copy))
    assert "'PAINTED-0001_0000001.pyd' at byte" in faults
    assert f"{name} at byte" in faults
    assert "is no crop" in faults
    (copy / "train-000000.tar").write_bytes(
        (copy / "train-000000.tar").read_bytes()[: read_info(copy)["shards"][0]["bytes"]]
    )
    with pytest.raises(ValueError, match=r"row 55 .* is broken"):
        Shards(copy).read([row])
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("size", [(40, 40), (80, 80), (120, 30), (1, 1)])
@pytest.mark.parametrize("codec", ["jpeg", "png"])
def test_a_crop_of_another_size(copy, size, codec):
    row = 55
    name = name_of(copy, row)
    data = encode(np.zeros((*size, 3), np.uint8), codec)
    rebuild(copy, lambda members: [(n, data if n == name else d) for n, d in members])
    assert f"{name} at byte" in "\n".join(verify(copy))
    with pytest.raises(
        ValueError, match=r"train-000001.tar: the crop of index row 55 .* is broken"
    ):
        Shards(copy).read([54, row])


def test_broken_crops_are_skipped_on_request_and_counted(copy, caplog):
    whole = Shards(copy).read(np.arange(len(Shards(copy))))
    last = 99  # the last row of shard 1: the next whole one is its first
    for row in (60, 61, last):
        offset = Shards(copy).index["offset"][row].as_py()
        change(copy / "train-000001.tar", offset, b"no image")
    skipped: list[tuple[int, str]] = []
    crops = Shards(copy).read([59, 60, 61, last, 62], skipped)
    assert np.array_equal(crops, whole[[59, 62, 62, 50, 62]])
    assert [row for row, _ in skipped] == [60, 61, last]
    assert "train-000001.tar: the crop of index row 60" in skipped[0][1]
    assert caplog.text.count("takes its place") == 3
    with pytest.raises(ValueError, match="row 60"):
        Shards(copy).read([60])


def test_lost_and_doubled_rows_are_found(copy):
    """A row that points to its neighbour: one sample doubled, one lost."""
    index = pq.read_table(copy / "index.parquet")
    rows = index.to_pylist()
    rows[51] = rows[52]
    pq.write_table(index.from_pylist(rows, schema=index.schema), copy / "index.parquet")
    faults = "\n".join(verify(copy))
    assert "is not in the index" in faults
    assert "samples were lost, doubled or exchanged" in faults


def test_names_never_become_other_paths(copy):
    for name in ("../../etc/passwd", "/etc/passwd", "a; rm -rf .tar", "x.pkl"):
        info = json.loads((copy / "dataset.json").read_text())
        info["shards"][0]["name"] = name
        (copy / "dataset.json").write_text(json.dumps(info))
        with pytest.raises(ValueError, match="names a shard"):
            Shards(copy)


def test_what_is_no_data_set_is_named(copy, tmp_path):
    (copy / "index.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match="is no Parquet file"):
        Shards(copy)
    for text, message in [("{", "no data set's description"), ('{"format": 9}', "of format 9")]:
        (copy / "dataset.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            Shards(copy)
    with pytest.raises(FileNotFoundError, match="no folder"):
        list(verify(tmp_path / "none"))


def test_rows_that_are_not_there(shards_folder):
    shards = Shards(shards_folder)
    for rows in ([-1], [len(shards)]):
        with pytest.raises(IndexError, match="rows"):
            shards.read(rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.drop_columns(["fingerprint"]), "has no column fingerprint; mix again"),
        (lambda index: index.replace_schema_metadata(None), "are of two data sets; mix again"),
    ],
)
def test_an_index_that_lacks_something_is_refused(copy, change, message):
    pq.write_table(change(pq.read_table(copy / "index.parquet")), copy / "index.parquet")
    with pytest.raises(ValueError, match=message):
        Shards(copy)


def test_info_says_and_shows_what_is_there(run_stage, shards_folder, tmp_path):
    sheet = tmp_path / "sheet.png"
    done = run_stage("shards/main.py", "info", shards_folder, "--sheet", sheet)
    assert done.returncode == 0, done.stderr
    shards = Shards(shards_folder)
    index = shards.index.to_pydict()
    for project in set(index["project"]):
        line = next(line for line in done.stdout.splitlines() if f"{project} " in line)
        assert f"{index['project'].count(project):,} cells" in line
    assert f"cells     {len(shards):,} of 60x60 px" in done.stdout
    assert f"{shards.info['mean'][0]:.4f}" in done.stdout
    picture = cv2.cvtColor(cv2.imread(str(sheet)), cv2.COLOR_BGR2RGB)
    assert np.array_equal(picture[:60, :60], shards.read([0])[0].transpose(1, 2, 0))
    assert np.array_equal(picture[62:122, 62:122], shards.read([21])[0].transpose(1, 2, 0))
