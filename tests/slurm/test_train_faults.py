"""What clusters do to a training on two nodes: its weights are those of the undisturbed run."""

import signal
import subprocess

import pytest
import torch

pytestmark = pytest.mark.slurm


def after_checkpoint(campaign, wait_for) -> None:
    """Submit, and wait for the training's first checkpoint."""
    assert campaign.submitted() == {"train": "-"}
    first = campaign.out / "runs" / "tiny" / "step-0000006.pt"
    wait_for(first.exists, 300, "a checkpoint")


def same_as(campaign, finished) -> None:
    """See that every step was done once, with the undisturbed run's result."""
    assert campaign.status().returncode == 0, campaign.logs()
    assert campaign.steps() == finished.steps()
    ours, theirs = campaign.weights(), finished.weights()
    assert ours["step"] == theirs["step"] == 24
    torch.testing.assert_close(ours["model"], theirs["model"], rtol=0, atol=0)
    torch.testing.assert_close(ours["optimizer"], theirs["optimizer"], rtol=0, atol=0)
    encoder = "runs/tiny/encoder/model.safetensors"
    assert (campaign.out / encoder).read_bytes() == (finished.out / encoder).read_bytes()
    assert campaign.submitted() == {}


def test_requeue(branch, finished, wait_for):
    campaign = branch()
    after_checkpoint(campaign, wait_for)
    subprocess.run(["scontrol", "requeue", campaign.job("train")], check=True)
    assert campaign.submitted() == {}
    campaign.finish()
    assert campaign.log("train-0").count("== job") == 2, campaign.log("train-0")
    assert "resuming from" in campaign.log("train-0")
    same_as(campaign, finished)


def test_preemption(branch, finished, wait_for):
    campaign = branch()
    after_checkpoint(campaign, wait_for)
    urgent = ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"]
    subprocess.run([*urgent, "--wrap", "sleep 1"], check=True, capture_output=True)
    campaign.finish()
    assert campaign.log("train-0").count("== job") == 2, campaign.log("train-0")
    same_as(campaign, finished)


def test_time_limit(branch, finished, wait_for):
    """The warning makes it save and go back into the queue; until it comes the ranks are frozen."""
    campaign = branch(TRAIN_TIME="2", TRAIN_WARNING=60)
    after_checkpoint(campaign, wait_for)
    campaign.freeze(signal.SIGSTOP)
    wait_for(lambda: "time limit is near" in campaign.log("train-0"), 150, "the warning")
    campaign.freeze(signal.SIGCONT)
    campaign.finish()
    log = campaign.log("train-0")
    assert "SIGUSR2" in log, log
    assert "to be started again" in log
    assert log.count("== job") >= 2
    same_as(campaign, finished)


def test_killed_rank(branch, finished, wait_for):
    """The job fails, and the next submit goes on from the last checkpoint."""
    campaign = branch()
    after_checkpoint(campaign, wait_for)
    campaign.freeze(signal.SIGKILL)
    campaign.finish()
    status = campaign.status()
    assert status.returncode == 1
    assert "train, failed" in status.stdout, status.stdout
    assert campaign.submitted() == {"train": "-"}
    campaign.finish()
    same_as(campaign, finished)
