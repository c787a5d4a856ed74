"""Tasks of a Ray cluster that is started on this machine, reachable from it alone."""

import signal
import time

import pytest

from vqtrain.errors import ConfigError, VqtrainError
from vqtrain.launchers.base import Ended
from vqtrain.launchers.ray import Ray

# Of Ray: it leaves its files to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.mark.slow
def test_tasks_run_and_each_end_is_told(here, launched):
    before = signal.getsignal(signal.SIGTERM)
    ends = launched(Ray(), ["say", "one"], ["fail", "2"])
    assert ends[0].code == 0
    assert ends[0].reason.endswith(f"{here} one")
    assert ends[1] == Ended(code=2, reason="it broke")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.soak
def test_an_interruption_ends_the_tasks(here, launched, is_running):
    def interrupt() -> None:
        if (here / "a").exists() and (here / "a").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launched(Ray(cpus=0.5), ["obey", "a"], tick=interrupt)
    deadline = time.monotonic() + 20
    while is_running(int((here / "a").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_cluster_that_is_not_there_is_said(launched):
    with pytest.raises(VqtrainError, match="cannot reach the Ray cluster"):
        launched(Ray(address="auto"), ["say"])


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_said_at_once(launched, address):
    began = time.monotonic()
    with pytest.raises(VqtrainError, match=f"Ray cluster at {address}: Connection refused"):
        launched(Ray(address=address), ["say"])
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cpus": 0.0}, "cpus must be above 0"), ({"gpus": -1.0}, "gpus must be at least 0")],
)
def test_impossible_tasks_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Ray(**options)
