"""Jobs of submitit, on its cluster of one machine."""

import time

import pytest

from vqtrain.errors import ConfigError
from vqtrain.launchers.base import Ended
from vqtrain.launchers.slurm import Slurm

# submitit leaves its process to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.slow
def test_jobs_run_and_each_end_is_told(here, launched):
    launcher = Slurm(cluster="debug", gpus=0, timeout_min=1)
    ends = launched(launcher, ["say", "one"], ["fail", "2"])
    assert ends[0].code == 0
    assert ends[0].reason.endswith(f"{here} one")
    assert ends[1] == Ended(code=2, reason="it broke")


@pytest.mark.slow
def test_an_interruption_cancels_the_jobs(here, launched, is_running):
    def interrupt() -> None:
        if (here / "a").exists() and (here / "a").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launched(Slurm(cluster="local", gpus=0, timeout_min=1), ["sleep", "a"], tick=interrupt)
    deadline = time.monotonic() + 40
    while is_running(int((here / "a").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_parameters_that_submitit_does_not_know_are_refused(launched):
    with pytest.raises(ConfigError, match=r"launcher_options: .*slurm_partitoin"):
        launched(Slurm(cluster="local", more={"slurm_partitoin": "gpu"}), ["say"])


def test_a_machine_without_slurm_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="finds no sbatch here"):
        Slurm()


def test_another_cluster_is_refused():
    with pytest.raises(ConfigError, match="cluster must be one of slurm, local, debug, got 'lsf'"):
        Slurm(cluster="lsf")
