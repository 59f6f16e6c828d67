"""Data sets behind URLs and commands: the same samples, and what is not the file is not kept."""

import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from shards.dataset import about_file, read_info
from shards.errors import NoRoom
from shards.read import Shards, stream
from shards.stream import Stream
from shards.verify import verify

PAGE = b"<html><head><title>Sign in</title></head><body>Sign in</body></html>"
BUSY = b"<html>503 Slow Down</html>"


class Store(http.server.BaseHTTPRequestHandler):
    """A folder behind http://host/<behaviour>/<name>."""

    root: Path
    asked: dict[str, int]

    def log_message(self, *_):
        pass

    def do_GET(self):
        behaviour, _, name = self.path.lstrip("/").partition("/")
        times = self.asked[self.path] = self.asked.get(self.path, 0) + 1
        path = self.root / name
        if behaviour == "page" or (behaviour == "page-for-index" and name == "index.parquet"):
            return self.answer(200, PAGE)
        if behaviour == "flaky" and times == 1:
            return self.answer(503, BUSY)
        if behaviour == "liar" and times == 1 and name != "dataset.json":
            return self.answer(200, BUSY)
        if name == "login":
            return self.answer(200, PAGE)
        if behaviour == "login" or (behaviour == "login-for-tars" and name.endswith(".tar")):
            return self.answer(302, b"", to="/x/login")
        if behaviour == "moved":
            return self.answer(301, b"", to=f"/ok/{name}")
        if behaviour == "circle":
            return self.answer(302, b"", to=self.path)
        if behaviour == "unzipped":
            return self.answer(200, path.read_bytes(), Content_Encoding="gzip")
        if behaviour == "forbidden":
            return self.answer(403, b"no")
        if behaviour == "down":
            return self.answer(500, b"no")
        if behaviour == "nothing" or not path.is_file():
            return self.answer(404, b"no")
        data = path.read_bytes()
        if behaviour == "cut" and name != "dataset.json":
            return self.answer(200, data[: len(data) // 2], len(data))
        if behaviour == "short" and name != "dataset.json":
            return self.answer(200, data[: len(data) // 2])
        if behaviour == "bit" and name.endswith(".tar"):
            data = data[:2000] + bytes([data[2000] ^ 1]) + data[2001:]
        if behaviour == "empty" and name != "dataset.json":
            data = b""
        return self.answer(200, data)

    def answer(self, code: int, data: bytes, length: int | None = None, to: str = "", **more: str):
        self.send_response(code)
        for word, value in (more | ({"Location": to} if to else {})).items():
            self.send_header(word.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True


@pytest.fixture(scope="module")
def served(shards_folder):
    """The shards behind http://."""
    handler = type("Handler", (Store,), {"root": shards_folder, "asked": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    """No pauses between attempts."""
    monkeypatch.setattr("shards.remote.RETRY_DELAYS_S", (0, 0))


def same_samples(shards: Shards, local: Path) -> bool:
    """Tell whether two ways in give the same batches."""
    steps = range(5)
    one, other = (Stream(s, 40, seed=1) for s in (shards, Shards(local)))
    return all(np.array_equal(one.read(step), other.read(step)) for step in steps)


class Steps(Dataset):
    def __init__(self, shards: Shards):
        self.stream = Stream(shards, 40, seed=1)

    def __getitem__(self, step: int) -> np.ndarray:
        return self.stream.read(step)


@pytest.mark.parametrize("behaviour", ["ok", "flaky", "liar", "moved"])
def test_http_gives_the_same_samples_though_answers_fail_once(
    served, shards_folder, tmp_path, behaviour
):
    shards = Shards(f"{served}/{behaviour}", cache=tmp_path / "cache")
    assert same_samples(shards, shards_folder)
    fetched = {p.name: p.read_bytes() for p in shards.folder.glob("*")}
    assert fetched.items() <= {p.name: p.read_bytes() for p in shards_folder.glob("*")}.items()
    assert len(fetched) > 2


@pytest.mark.parametrize("form", ["pipe:cat {}", "pipe:cat {}/{{}}", "file://{}"])
def test_other_ways_give_the_same_samples(shards_folder, tmp_path, form):
    assert same_samples(Shards(form.format(shards_folder), cache=tmp_path), shards_folder)


def test_a_store_of_fsspec_gives_the_same_samples(shards_folder, tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in shards_folder.glob("*.*"):
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    assert same_samples(Shards("memory://bucket", cache=tmp_path), shards_folder)


def test_data_workers_fetch_by_themselves(served, shards_folder, tmp_path):
    shards = Shards(f"{served}/ok", cache=tmp_path)
    workers = min(2, len(os.sched_getaffinity(0)))  # of more than there are cores torch warns
    steps = DataLoader(Steps(shards), batch_size=None, sampler=range(3), num_workers=workers)
    loaded = list(steps)
    local = Stream(Shards(shards_folder), 40, seed=1)
    assert all(np.array_equal(got.numpy(), local.read(i)) for i, got in enumerate(loaded))


# What comes, from where -> what is said. The address stands in every message.
REFUSED = [
    ("HTTP/page", "68 bytes came that begin '<html>", "a web page ('Sign in')"),
    ("HTTP/page-for-index", "68 bytes came that begin '<html>", "a web page ('Sign in')"),
    ("HTTP/login", "68 bytes came that begin '<html>", "a web page ('Sign in')"),
    ("HTTP/circle", "cannot read HTTP/circle/dataset.json", "is it a folder that `mix`"),
    ("HTTP/unzipped", "cannot read HTTP/unzipped/dataset.json", "400"),
    ("HTTP/short", "bytes came that begin 'PAR1", "instead of"),
    ("HTTP/empty", "0 bytes came", "which is empty"),
    ("HTTP/cut", "cannot read HTTP/cut/index.parquet", "is it a folder that `mix` wrote"),
    ("HTTP/nothing", "cannot read HTTP/nothing/dataset.json", "is it a folder that `mix`"),
    ("HTTP/forbidden", "cannot read HTTP/forbidden/dataset.json", "403"),
    ("HTTP/down", "cannot read HTTP/down/dataset.json", "500"),
    ("http://127.0.0.1:1/x", "cannot read http://127.0.0.1:1/x/dataset.json", "127.0.0.1"),
    ("pipe:echo '<html>no</html>'", "bytes came that begin '<html>no</html>", "a web page"),
    ("""pipe:echo '{"a":1}' #""", "dataset.json", "no data set's description: KeyError"),
    ("pipe:printf '[1]' ; #", "dataset.json", "no data set's description: TypeError"),
    ("pipe:printf '\\377\\376' ; #", "dataset.json", "no data set's description: JSONDecode"),
    ("pipe:true #", "0 bytes came", "which is empty"),
    ("pipe:no-such-command-here", "cannot read pipe:no-such-command-here", "exit code 127"),
    ("pipe:echo oh dear >&2; exit 3; #", "cannot read pipe:echo oh dear", "exit code 3: oh dear"),
    ("nowhere://bucket/x", "cannot read nowhere://bucket/x/dataset.json", "nowhere"),
]


@pytest.mark.parametrize(("place", "said", "why"), REFUSED, ids=[r[0] for r in REFUSED])
def test_what_is_no_data_set_is_named_and_not_kept(served, tmp_path, place, said, why):
    url = place.replace("HTTP", served)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        Shards(url, cache=tmp_path)
    message = str(caught.value)
    assert said.replace("HTTP", served) in message
    assert why in message
    assert url[:30] in message
    assert "\\x00" not in message  # what no terminal should be filled with
    assert "mix again" not in message  # that would cost days, and help nothing
    kept = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert not {n for n in kept if n.endswith((".parquet", ".tmp", ".tar"))}, kept


def test_s3_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(
        FileNotFoundError, match=r"s3://b/x/dataset\.json .*pip install -e \.\[s3\]"
    ):
        Shards("s3://b/x", cache=tmp_path)


@pytest.mark.parametrize("damage", ["page", "cut", "other rows", "empty"])
def test_a_bad_index_in_the_cache_is_fetched_anew(shards_folder, tmp_path, damage):
    """Earlier versions kept whatever came."""
    url = f"pipe:cat {shards_folder}"
    index = Shards(url, cache=tmp_path).folder / "index.parquet"
    whole = index.read_bytes()
    index.write_bytes({"page": PAGE, "cut": whole[:-9], "empty": b""}.get(damage, whole))
    if damage == "other rows":
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(index).slice(1), index)
    assert same_samples(Shards(url, cache=tmp_path), shards_folder)
    assert index.read_bytes() == whole


def test_a_data_set_whose_description_says_nothing_of_its_index_is_read(shards_folder, tmp_path):
    import json

    old = Path(shutil.copytree(shards_folder, tmp_path / "old"))
    info = json.loads((old / "dataset.json").read_text())
    assert info.pop("index") == about_file(shards_folder / "index.parquet")
    (old / "dataset.json").write_text(json.dumps(info))
    assert same_samples(Shards(f"pipe:cat {old}", cache=tmp_path / "cache"), shards_folder)
    assert not list(verify(old))
    (old / "index.parquet").write_bytes(PAGE)
    with pytest.raises(ValueError, match=r"cat \S+/index.parquet: 68 bytes .* a web page .*no Par"):
        Shards(f"pipe:cat {old}", cache=tmp_path / "new")


def test_a_changed_index_is_a_fault(shards_folder, tmp_path):
    import pyarrow.parquet as pq

    copy = Path(shutil.copytree(shards_folder, tmp_path / "copy"))
    table = pq.read_table(copy / "index.parquet")
    pq.write_table(table, copy / "index.parquet", compression="gzip")
    assert read_info(copy)["index"]["sha256"] != about_file(copy / "index.parquet")["sha256"]
    assert any("index.parquet: changed since mix wrote it" in fault for fault in verify(copy))


@pytest.mark.parametrize(
    ("behaviour", "error", "said"),
    [
        ("bit", ValueError, r"train-000000\.tar: .* bytes of sha256 .* instead of"),
        ("short", ValueError, r"train-000000\.tar: .* bytes of sha256 .* instead of"),
        ("cut", FileNotFoundError, r"cannot read .*train-000000\.tar"),
        ("nothing", FileNotFoundError, r"cannot read .*train-000000\.tar"),
        ("page", ValueError, r"train-000000\.tar: 68 bytes .*a web page"),
    ],
)
def test_a_shard_damaged_on_the_way_is_refused(served, tmp_path, behaviour, error, said):
    shards = Shards(f"{served}/ok", cache=tmp_path)
    shards._mirror.url = f"{served}/{behaviour}"
    with pytest.raises(error, match=said):
        shards.read([0])
    assert not list(tmp_path.rglob("*.tar"))
    shards._mirror.url = f"{served}/ok"
    assert shards.read([0]).shape == (1, 3, 60, 60)


def test_a_full_cache_is_no_fault_of_the_url(shards_folder, small_disk):
    needed = sum(p.stat().st_size for p in shards_folder.glob("*.[jp]*"))
    with small_disk(needed + 40_000) as disk:
        shards = Shards(f"file://{shards_folder}", cache=disk)
        with pytest.raises(NoRoom, match=rf"no room in {disk}/\w+ for train-000000.tar"):
            shards.read([0])
        with pytest.raises(NoRoom):
            Shards(f"pipe:cat {shards_folder}", cache=disk).read([0])


def test_the_cache_makes_room(shards_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.remote.KEEP", 2)
    shards = Shards(f"pipe:cat {shards_folder}", cache=tmp_path)
    assert len(shards.samples) > 2
    crops = shards.read(np.arange(len(shards)))
    assert np.array_equal(crops, Shards(shards_folder).read(np.arange(len(shards))))
    assert len(list(tmp_path.rglob("*.tar"))) == 2


def test_streams_come_over_every_way_alike(served, shards_folder):
    tar = shards_folder / "train-000000.tar"
    ways = [str(tar), f"pipe:cat {tar}", f"{served}/ok/{tar.name}"]
    first, *others = [[key for key, _ in stream(way)] for way in ways]
    assert len(first) == 50
    assert all(keys == first for keys in others)
    next(stream(f"pipe:cat {tar}"))  # who stops early waits for nobody
    with pytest.raises(FileNotFoundError, match="cannot read"):
        list(stream(str(tar) + "x"))


STREAMED = [  # a tar from where it should be -> what is said
    ("HTTP/login/T", "gives a web page .'Sign in'."),
    ("HTTP/page/T", "gives a web page .'Sign in'."),
    ("HTTP/login-for-tars/T", "gives a web page"),
    ("HTTP/empty/T", r"gives empty .0 bytes."),
    ("HTTP/cut/T", "cannot read|is no tar that reads to its end"),
    ("HTTP/short/T", "is no tar that reads to its end .unexpected end of data"),
    ("HTTP/forbidden/T", "cannot read"),
    ("HTTP/nothing/T", "cannot read"),
    ("HTTP/down/T", "cannot read"),
    ("HTTP/circle/T", "cannot read"),
    ("HTTP/unzipped/T", "cannot read"),
    ("HTTP/ok/dataset.json", "is no tar that reads to its end"),
    ("FOLDER/dataset.json", "is no tar that reads to its end"),
    ("FOLDER/nowhere.tar", "cannot read"),
    ("pipe:cat FOLDER/dataset.json", "is no tar that reads to its end"),
    ("pipe:head -c 9000 FOLDER/T", "is no tar that reads to its end"),
]


@pytest.mark.parametrize(("place", "said"), STREAMED, ids=[s[0] for s in STREAMED])
def test_what_is_no_tar_is_named(served, shards_folder, place, said):
    url = place.replace("HTTP", served).replace("FOLDER", str(shards_folder))
    url = re.sub(r"\bT$", "train-000001.tar", url)
    with pytest.raises((ValueError, OSError), match=said) as caught:
        list(stream(url))
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tar_that_moved_is_streamed(served, shards_folder):
    there = list(stream(f"{served}/moved/train-000001.tar"))
    here = list(stream(str(shards_folder / "train-000001.tar")))
    assert [k for k, _ in there] == [k for k, _ in here]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(there, here, strict=True))
