"""A real SLURM for the tests, brought up once, and campaigns on it."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = Path(__file__).with_name("cluster.sh")
# A campaign of seconds: 6 slides in 3 parts, 24 steps on two nodes of one rank,
# two checkpoints and a baseline probed.
SETTINGS = {
    "SLIDES_FLAGS": "",
    "SEED": 0,
    "STAGES": "extract mix train evaluate",
    "ACCOUNT": "",
    "GPU_PARTITION": "gpu",
    "CPU_PARTITION": "cpu",
    "GRES": "gpu",
    "SBATCH_FLAGS": "",
    "SETUP": f"export PATH={Path(sys.executable).parent}:$PATH OMP_NUM_THREADS=1",
    "WRAP": "",
    "EXTRACT_FLAGS": "",
    "SLIDES_PER_TASK": 2,
    "EXTRACT_AT_ONCE": 2,
    "EXTRACT_GPUS": 1,
    "EXTRACT_CPUS": 1,
    "EXTRACT_MEMORY": "2G",
    "EXTRACT_TIME": "10",
    "TOLERATED_SLIDES": "0",
    "MIX_PARTS": 2,
    "MIX_CPUS": 1,
    "MIX_MEMORY": 0.01,  # several runs, so that both parts have work
    "MIX_TIME": "10",
    "SAMPLES_PER_SHARD": 100,
    "RUN": "tiny",
    "TRAIN_FLAGS": "--encoder vit_ti8 --policy light --batch 16 --epochs 1 --epoch-samples 384 "
    "--warmup-epochs 0.1 --hidden 64 --projection 32 --workers 0 --checkpoint-every 6 "
    "--log-every 1",
    "TRAIN_NODES": 2,
    "TRAIN_PROCESSES": 1,
    "TRAIN_GPUS": 1,
    "TRAIN_CPUS": 1,
    "TRAIN_MEMORY": "2G",
    "TRAIN_TIME": "10",
    "TRAIN_WARNING": 60,
    "BASELINES": "morphology",
    "EVALUATE_FLAGS": "--bootstrap 0 --knn 0",
    "EVALUATE_EVERY": 12,  # of 24 steps: two checkpoints
    "EVALUATE_GPUS": 1,
    "EVALUATE_CPUS": 1,
    "EVALUATE_MEMORY": "2G",
    "EVALUATE_TIME": "10",
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A SLURM of two nodes; its folder. Everything of it is ended, whatever the tests did."""
    cannot = pytest.fail if os.environ.get("LEMON_CI") else pytest.skip
    if os.geteuid() != 0:
        cannot("a real SLURM needs root (slurmd starts jobs as their users)")
    installed = subprocess.run([CLUSTER, "install"], capture_output=True, text=True)
    if installed.returncode:
        cannot(f"SLURM cannot be installed by apt-get: {installed.stderr[-300:]}")
    folder = Path(tempfile.mkdtemp(prefix="lemon-slurm-"))
    try:
        up = [CLUSTER, "up", folder, str(free_ports())]
        subprocess.run(up, check=True, stdin=subprocess.DEVNULL)
        os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
        yield folder
    finally:
        subprocess.run([CLUSTER, "down", folder], check=True)
        os.environ.pop("SLURM_CONF", None)
        shutil.rmtree(folder)


def free_ports() -> int:
    """Return the first of three ports in a row that nobody listens on."""
    for port in range(17000 + os.getpid() % 500 * 10, 65000, 10):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for number in range(port, port + 3):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
            return port
    raise RuntimeError("no free ports")


@pytest.fixture(scope="session")
def slides(run_stage, tmp_path_factory) -> Path:
    """Six painted slides, and a benchmark of one more."""
    folder = tmp_path_factory.mktemp("slides")
    painted = run_stage(
        *("demo/main.py", "--out", folder, "--slides", 6, "--held-out", 1, "--size", 512)
    )
    assert painted.returncode == 0, painted.stderr
    return folder


class Campaign:
    """A campaign under test: its settings and folder, and what SLURM says of its jobs."""

    def __init__(self, out: Path, slides: Path, **changes: object):
        self.out = out
        given = SETTINGS | {"OUT": out, "SLIDES": slides / "slides.csv"}
        given |= {"BENCHMARKS": slides / "painted-nuclei"} | changes
        self.settings = out.with_name(f"{out.name}.sh")
        self.settings.write_text("".join(f'{name}="{value}"\n' for name, value in given.items()))

    def submit(self, *flags: str) -> subprocess.CompletedProcess:
        """Run submit.sh."""
        command = ["bash", ROOT / "slurm" / "submit.sh", self.settings, *flags]
        return subprocess.run(command, capture_output=True, text=True)

    def submitted(self) -> dict[str, str]:
        """Run submit.sh, which must succeed; return the --array of what it submitted by job."""
        before = self._jobs()
        done = self.submit()
        assert done.returncode == 0, done.stderr
        return {job: array for job, _, array in self._jobs()[len(before) :]}

    def _jobs(self) -> list[list[str]]:
        path = self.out / "jobs.tsv"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split("\t")[1:] for line in lines]

    def job(self, name: str) -> str:
        """Return the id of the job last submitted for a job of the chain."""
        return [job for stage, job, _ in self._jobs() if stage == name][-1]

    def held(self) -> bool:
        """Tell whether a task waits that SLURM will not start by itself."""
        return any("held" in line for line in self.live("%r"))

    def live(self, shown: str = "%K %T") -> list[str]:
        """Return squeue's lines of this campaign: job of the chain, place in the array, state."""
        ident = json.loads((self.out / "campaign.json").read_text())["id"]
        command = ["squeue", "-h", "-r", "-o", f"%j {shown}"]
        for _ in range(20):  # on a busy machine slurmctld does not always answer in time
            asked = subprocess.run(command, capture_output=True, text=True)
            if asked.returncode == 0:
                break
            time.sleep(1)
        assert asked.returncode == 0, asked.stderr
        start = f"lemon-{ident}-"
        return [x.removeprefix(start) for x in asked.stdout.splitlines() if x.startswith(start)]

    def finish(self, seconds: float = 1200) -> None:
        """Wait until none of its jobs is left."""
        wait_until(lambda: not self.live(), seconds, f"{self.out} to end")

    def log(self, unit: str) -> str:
        """Return a unit's log, e.g. of extract-0; nothing if there is none yet."""
        path = self.out / "logs" / f"{unit}.log"
        return path.read_text() if path.exists() else ""

    def logs(self) -> str:
        """Return all logs, for a failed assertion's message."""
        return "\n".join(f"{p}\n{p.read_text()}" for p in sorted(self.out.glob("logs/*.log")))

    def status(self) -> subprocess.CompletedProcess:
        """Run status.py."""
        command = [sys.executable, ROOT / "slurm" / "status.py", self.out]
        return subprocess.run(command, capture_output=True, text=True)

    def processes(self, job: str, unit: int | None = None) -> list[int]:
        """Return the processes of a job on both nodes, found by their environment."""
        wanted = {f"SLURM_JOB_ID={self.job(job)}"}
        if unit is not None:
            wanted = {f"SLURM_ARRAY_JOB_ID={self.job(job)}", f"SLURM_ARRAY_TASK_ID={unit}"}
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if wanted <= set(path.read_bytes().decode(errors="replace").split("\0")):
                    found.append(int(path.parent.name))
        return found

    def kill(self, number: signal.Signals, job: str, unit: int | None = None) -> None:
        """Send a signal to the processes of a job, behind SLURM's back."""
        for pid in self.processes(job, unit):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self, number: signal.Signals) -> None:
        """Send a signal to the ranks of the training alone: not to torchrun, srun and the shell."""
        for pid in self.processes("train"):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if any(word.endswith(b"train/main.py") for word in words[1:3]):
                os.kill(pid, number)

    def cells(self) -> dict[str, str]:
        """Return the digest of every file of cells, and each slide's counts."""
        return describe_cells(self.out / "cells")

    def shards(self) -> dict[str, str]:
        """Return the digest of every file of the shards."""
        return {p.name: digest(p) for p in sorted((self.out / "shards").iterdir()) if p.is_file()}

    def steps(self) -> list[int]:
        """Return the steps in the run's log, in order."""
        lines = (self.out / "runs" / "tiny" / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]

    def weights(self) -> dict:
        """Return the run's last checkpoint."""
        from train.checkpoint import checkpoints, load

        return load(checkpoints(self.out / "runs" / "tiny")[-1])


def digest(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def describe_cells(cells: Path) -> dict[str, str]:
    """Return the digest of every file of cells; of records what does not depend on the run."""
    found = {
        p.name: digest(p) for p in sorted(cells.glob("*.tar")) + sorted(cells.glob("*.parquet"))
    }
    for path in sorted(cells.glob("*.json")):
        record = json.loads(path.read_text())
        found[path.name] = json.dumps(
            [record["outcome"], record.get("fates"), record.get("sha256")]
        )
    assert not [p for p in cells.iterdir() if p.name not in found and p.suffix == ".json"]
    return found


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            queue = subprocess.run(["squeue"], capture_output=True, text=True).stdout
            raise AssertionError(f"waited {seconds} s for {what}\n{queue}")
        time.sleep(0.1)


@pytest.fixture(scope="session")
def wait_for() -> Callable:
    """Poll until a condition holds: wait_for(condition, seconds, what)."""
    return wait_until


@pytest.fixture(scope="session")
def cells_of() -> Callable[[Path], dict[str, str]]:
    """Describe the cells that a command made without SLURM."""
    return describe_cells


@pytest.fixture
def begin(cluster, slides, tmp_path) -> Iterator[Callable[..., Campaign]]:
    """Make campaigns: begin(SETTING=…). Their jobs are cancelled at the end of the test."""
    made = []

    def make(**changes: object) -> Campaign:
        made.append(Campaign(tmp_path / f"campaign{len(made)}", slides, **changes))
        return made[-1]

    yield make
    wait_until(cleared, 300, "an idle SLURM")


def cleared() -> bool:
    """Cancel all that is queued, for a killed controller brings back jobs nobody knows of."""
    ask = ["squeue", "-h", "-o", "%A"]
    for job in set(subprocess.run(ask, capture_output=True, text=True).stdout.split()):
        subprocess.run(["scancel", job], capture_output=True)
    return idle()


def idle() -> bool:
    """Bring back nodes that are down or drained; tell whether both are idle and the queue empty."""
    for node in ("node1", "node2"):  # those that are well refuse it
        resume = ["scontrol", "update", f"nodename={node}", "state=resume"]
        subprocess.run(resume, capture_output=True)
    ask = ["sinfo", "-h", "-N", "-p", "cpu", "-o", "%t"]
    nodes = subprocess.run(ask, capture_output=True, text=True).stdout.split()
    queue = subprocess.run(["squeue", "-h"], capture_output=True, text=True).stdout
    return nodes == ["idle", "idle"] and not queue


@pytest.fixture(scope="session")
def finished(cluster, slides, tmp_path_factory) -> Campaign:
    """A campaign that nothing disturbed, from slides to the report."""
    campaign = Campaign(tmp_path_factory.mktemp("finished") / "campaign", slides)
    campaign.first = campaign.submitted()
    campaign.second = campaign.submit()
    campaign.finish()
    return campaign


@pytest.fixture
def branch(begin, finished) -> Callable[..., Campaign]:
    """Begin campaigns whose shards are made: branch(SETTING=…)."""

    def make(**changes: object) -> Campaign:
        campaign = begin(STAGES="extract mix train", **changes)
        campaign.out.mkdir()
        for name in ("slides.csv", "cohort.json", "shards"):
            path = finished.out / name
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, campaign.out / name)
        begun = json.loads((finished.out / "campaign.json").read_text())
        begun["id"] = hashlib.sha256(str(campaign.out).encode()).hexdigest()[:6]
        (campaign.out / "campaign.json").write_text(json.dumps(begun))
        return campaign

    return make
