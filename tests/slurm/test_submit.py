"""submit.sh against a SLURM that is four scripts: what sites do, without a scheduler, and quick."""

import os
import subprocess
from pathlib import Path

import pytest

from slurm.campaign import Campaign, begin
from slurm.plan import shell_settings, unchecked
from slurm.settings import check_settings, read_settings
from tests.slurm.test_plan import example

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {
    "squeue": 'cat "$SITE/queue" 2>/dev/null || true',
    "sinfo": '[ -e "$SITE/partitions" ] && cat "$SITE/partitions"',
    "scontrol": 'echo "MaxArraySize            = ${MAX-1001}"',
    # One argument a line; refuses what the test says, with the site's words.
    "sbatch": r"""printf '%s\n' "$@" >>"$SITE/asked"; echo -- >>"$SITE/asked"
echo "sbatch: info: welcome" >&2
case "$*" in *"${REFUSE-nothing}"*) echo "error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1 ;; esac
echo "Welcome to the cluster"; echo "$((RANDOM + 1));far" """,
    # In the place of `$WRAP python slurm/plan.py …`: what a campaign of three jobs needs.
    "plan": r"""printf '%s\n' "$@" >"$SITE/planned"
printf '%s\n' "campaign abc123 - -" "extract 0-2 - 3" "admit - - 1" "train - - 1" """,
}


@pytest.fixture
def site(tmp_path) -> Path:
    """A folder with those scripts, and settings that go by them."""
    for name, text in SCRIPTS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "partitions").write_text("cpu\ngpu\n")
    text = (ROOT / "slurm" / "settings.sh").read_text()
    changes = {"OUT": tmp_path / "out", "SETUP": "", "WRAP": "plan", "EXTRACT_GPUS": 0}
    (tmp_path / "mine.sh").write_text(text + "".join(f"{k}={v}\n" for k, v in changes.items()))
    return tmp_path


def submit(site: Path, *flags: str, settings: str = "mine.sh", **variables: str):
    """Run submit.sh there."""
    path = f"{site}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", ROOT / "slurm" / "submit.sh", settings, *flags],
        env={**os.environ, "PATH": path, "SITE": str(site), **variables},
        cwd=site,
        capture_output=True,
        text=True,
    )


def asked(site: Path) -> list[list[str]]:
    """Return the arguments of each call of sbatch."""
    calls = (site / "asked").read_text().split("--\n")[:-1]
    return [call.splitlines() for call in calls]


def add(site: Path, line: str) -> None:
    with open(site / "mine.sh", "a") as file:
        file.write(line + "\n")


def test_ids_are_read_below_what_a_site_says(site):
    done = submit(site)
    assert done.returncode == 0, done.stderr
    jobs = [line.split("\t") for line in (site / "out/jobs.tsv").read_text().splitlines()]
    assert [job[1] for job in jobs] == ["extract", "admit", "train"]
    assert all(job[2].isdigit() for job in jobs)
    assert f"--dependency=afterany:{jobs[0][2]}" in asked(site)[1]
    assert "--max-array\n1001" in (site / "planned").read_text()


def test_settings_written_on_windows(site):
    text = "\ufeff" + (site / "mine.sh").read_text().replace("\n", "\r\n")
    (site / "mine.sh").write_bytes(text.encode())
    done = submit(site)
    assert done.returncode == 0, done.stderr
    assert (site / "out" / "jobs.tsv").exists()
    assert "--partition=gpu" in asked(site)[0]
    assert not any("\r" in word for call in asked(site) for word in call)
    (site / "mine.sh").write_bytes(text.encode("utf-16"))
    done = submit(site)
    assert done.returncode == 2 and "mine.sh is UTF-16; save it as UTF-8" in done.stderr


def test_quotes_in_flags_hold_words_together(site):
    add(site, """SBATCH_FLAGS='--constraint="a100|h100" --comment="two words" --qos=long'""")
    assert submit(site).returncode == 0
    for call in asked(site):
        assert call[-5:-2] == ["--constraint=a100|h100", "--comment=two words", "--qos=long"]
    add(site, """SBATCH_FLAGS='--comment="open'""")
    done = submit(site)
    assert done.returncode == 2 and 'SBATCH_FLAGS=--comment="open: ' in done.stderr


def test_partitions_several_and_none(site):
    add(site, "GPU_PARTITION=gpu,gpu-long\nCPU_PARTITION=")
    assert submit(site).returncode == 0
    extract, admit, _ = asked(site)
    assert "--partition=gpu,gpu-long" in extract
    assert not any(word.startswith("--partition") for word in admit)


@pytest.mark.parametrize(
    ("variables", "partitions", "said"),
    [
        ({}, False, "warning: sinfo does not answer, partitions are not looked at"),
        ({"MAX": ""}, True, "warning: scontrol does not say MaxArraySize"),
        ({"MAX": "(null)"}, True, "warning: scontrol does not say MaxArraySize"),
    ],
)
def test_what_a_site_does_not_tell_is_not_checked(site, variables, partitions, said):
    if not partitions:
        (site / "partitions").unlink()
    done = submit(site, **variables)
    assert done.returncode == 0 and said in done.stderr, done.stderr
    planned = (site / "planned").read_text()
    assert ("--partitions" in planned) == partitions
    assert ("--max-array" in planned) == (not variables)


@pytest.mark.parametrize(("job", "taken"), [("abc123-extract", 0), ("abc123-train", 2)])
def test_a_refusal_is_named_and_the_next_submission_goes_on(site, job, taken):
    done = submit(site, REFUSE=job)
    assert done.returncode == 2
    assert "QOSMaxSubmitJobPerUserLimit" in done.stderr
    assert f"error: sbatch refused {job.partition('-')[2]}: sbatch --parsable" in done.stderr
    assert ("stay queued" in done.stderr) == (taken > 0)
    jobs = site / "out" / "jobs.tsv"
    assert len(jobs.read_text().splitlines() if jobs.exists() else []) == taken
    assert submit(site).returncode == 0


def settings(**changes: object):
    return read_settings(example() | {name: str(value) for name, value in changes.items()})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"GPU_PARTITION": "gpu"}, []),
        ({"GPU_PARTITION": "gpu,cpu"}, []),
        ({"GPU_PARTITION": ""}, []),
        ({"GPU_PARTITION": "gpu, secret"}, ["sinfo shows no partition 'secret'"]),
        ({"SBATCH_FLAGS": "-M far"}, ["whose queue is not looked at"]),
        ({"SBATCH_FLAGS": "--clusters=far,away"}, ["whose queue is not looked at"]),
    ],
)
def test_what_only_sbatch_can_judge_is_a_warning(changes, said):
    remarks = unchecked(settings(**changes), ["gpu", "cpu"])
    assert len(remarks) == len(said) and all(s in r for s, r in zip(said, remarks, strict=True))
    if "SBATCH_FLAGS" not in changes:
        assert unchecked(settings(**changes), None) == []  # sinfo said nothing


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("TRAIN_MEMORY", "0", None),  # all of a node's
        ("TRAIN_MEMORY", "200g", None),
        ("TRAIN_MEMORY", "48 GB", "as sbatch takes it"),
        ("TRAIN_TIME", "UNLIMITED", None),
        ("TRAIN_TIME", "1-12", None),
        ("TRAIN_TIME", "1 day", "as sbatch takes it"),
        ("SBATCH_FLAGS", '--comment="two words"', None),
        ("SBATCH_FLAGS", '--comment="two', "No closing quotation"),
        ("SBATCH_FLAGS", "--job-name=mine", "which the recipes set themselves"),
        ("SBATCH_FLAGS", "-d singleton", "which the recipes set themselves"),
        ("WRAP", "apptainer exec 'lemon.sif", "No closing quotation"),
        ("EXTRACT_FLAGS", '--hoverfast-command "a b', "No closing quotation"),
    ],
)
def test_settings_as_sbatch_takes_them(name, value, fault):
    errors = [e for e in check_settings(settings(**{name: value})) if e.startswith(name)]
    assert (not errors) if fault is None else fault in errors[0]


@pytest.mark.parametrize(
    ("recipe", "name", "before"),
    [
        ("extract.sbatch", "EXTRACT_FLAGS", "--seed"),
        ("train.sbatch", "TRAIN_FLAGS", "--keep-every"),
        ("evaluate.sbatch", "EVALUATE_FLAGS", "--out"),
    ],
)
def test_recipes_hold_quoted_words_together(site, recipe, name, before):
    flags = "--name 'two words' --other \"a|b $HOME *\" -x"
    given = settings(OUT=site, WRAP="plan 'my image.sif'", SETUP="", TRAIN_WARNING=1)
    values = given.__dict__ | {name: flags}
    campaign = Campaign(given, "abc123", ["a"], 1)
    text = shell_settings(campaign)
    if name != "TRAIN_FLAGS":  # those are checked as settings of a run
        text = shell_settings(Campaign(type(given)(**values), "abc123", ["a"], 1))
    else:
        text += 'TRAIN_FLAGS_WORDS=(--name "two words" --other "a|b \\$HOME *" -x)\n'
    (site / "settings.sh").write_text(text)
    (site / "slides.csv").write_text("slide_id,path\na,a.svs\n")
    (site / "embed.tsv").write_text("lemon\t/x\t/y\n")
    (site / "srun").write_text(
        '#!/bin/bash\nwhile [ "$1" != torchrun ]; do shift; done; shift; "$@"\n'
    )
    (site / "srun").chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n", "SLURM_CPUS_PER_TASK": "1"}
    slurm |= {"SLURM_ARRAY_TASK_ID": "0"} if name == "EXTRACT_FLAGS" else {}
    environment = {**os.environ, **slurm, "PATH": f"{site}:{os.environ['PATH']}", "SITE": str(site)}
    (site / "plan").write_text('#!/bin/bash\nprintf "%s\\n" "$@" >>"$SITE/planned"\n')
    subprocess.run(["bash", ROOT / "slurm" / recipe, site], env=environment, capture_output=True)
    words = (site / "planned").read_text().split("\n")
    assert words[0] == "my image.sif"
    start = words.index("--name")
    assert words[start : start + 5] == ["--name", "two words", "--other", "a|b $HOME *", "-x"]
    assert words[start - 2] == before


def test_a_campaign_without_a_job_gives_way_to_other_settings(tmp_path, monkeypatch):
    listed = tmp_path / "listed.csv"
    listed.write_text("slide_id,path\na,a.svs\nb,b.svs\n")
    monkeypatch.setattr("slurm.campaign._list_slides", lambda settings, folder: listed)
    out = tmp_path / "out"
    first = begin(settings(OUT=out), write=True)
    other = settings(OUT=out, SLIDES_PER_TASK=1)
    assert begin(other, write=False).parts == 2  # nothing was taken: sbatch refused it
    queue = f"lemon-{first.id}-extract|7|0|PENDING|Priority\n"
    with pytest.raises(ValueError, match="SLIDES_PER_TASK was 20, is 1"):
        begin(other, write=True, queue=queue)
    second = begin(other, write=True)
    assert second.id != first.id and begin(other, write=True).id == second.id
    (out / "jobs.tsv").write_text("now\textract\t7\t0-1\n")
    with pytest.raises(ValueError, match="SLIDES_PER_TASK was 1, is 20"):
        begin(settings(OUT=out), write=True)
