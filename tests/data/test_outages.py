"""Training batches from servers that go away in the middle of an epoch and come back."""

import io
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from vqtrain.data import servers
from vqtrain.data.batches import Batch
from vqtrain.data.loaders import training_loader
from vqtrain.data.settings import DataSettings
from vqtrain.data.sources import open_images

# Python 3.12 and later warn of a fork beside a server's threads, which workers do not touch.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

SETTINGS = DataSettings(
    train="-",
    val="-",
    image_size=8,
    channels=3,
    crop="random_resized",
    flip=True,
    batch_size=5,
    num_workers=2,
    sampling="permuted",
    range=None,
    background="white",
    max_bad_fraction=0.01,
)


@pytest.fixture
def shards(tmp_path: Path, encode: Callable, write_tar: Callable) -> dict[str, bytes]:
    """Make two shards, of 40 and 10 pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (50, 12, 12, 3), dtype=np.uint8)
    members = {f"{number:03d}.png": encode(noise[number]) for number in range(50)}
    names = list(members)
    parts = {"0.tar": names[:40], "1.tar": names[40:]}
    return {
        name: write_tar(tmp_path / name, {key: members[key] for key in part}).read_bytes()
        for name, part in parts.items()
    }


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the server for every image, and be patient."""
    monkeypatch.setenv("VQTRAIN_CACHE_GB", "0")
    monkeypatch.setattr(servers, "PATIENCE_S", 30.0)


def batches_of(images: str, count: int, outage: Callable[[], None]) -> list[Batch]:
    """Load batches, and after two of them have the outage."""
    index = open_images(images, role="training")
    place = {"seed": 1, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0}
    batches = iter(training_loader(index, settings=SETTINGS, **place))
    first = list(islice(batches, 2))
    outage()
    return [*first, *islice(batches, count - 2)]


def assert_nothing_is_lost(batches: list[Batch], expected: list[Batch]) -> None:
    keys = [key for batch in batches for key in batch.keys]
    for start in range(0, len(keys), 50):
        assert sorted(keys[start : start + 50]) == [f"{number:03d}" for number in range(50)]
    assert not any(batch.faults for batch in batches)
    for batch, other in zip(batches, expected, strict=True):
        assert batch.keys == other.keys
        assert batch.images.equal(other.images)


def test_http(shards: dict[str, bytes], server: object, tmp_path: Path) -> None:
    for name, content in shards.items():
        server.put(name, content)

    def outage() -> None:
        server.troubles += ["cut", 503, "cut"]
        server.shutdown()
        server.server_close()  # connections are refused from now on
        back = threading.Timer(0.5, restart)
        back.start()
        restarted.append(back)

    restarted: list[threading.Timer] = []

    def restart() -> None:
        # The same server on the same port.
        type(server).__bases__[0].__init__(server, server.server_address, server.RequestHandlerClass)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    batches = batches_of(f"{server.url}/{{0,1}}.tar", 20, outage)
    restarted[0].join()
    assert server.troubles == []
    expected = batches_of(str(tmp_path / "{0,1}.tar"), 20, lambda: None)
    assert_nothing_is_lost(batches, expected)


def test_s3(
    shards: dict[str, bytes], s3: Callable[[str, bytes], str], tmp_path: Path
) -> None:
    for name, content in shards.items():
        s3(name, content)

    def outage() -> None:
        s3.stop()  # type: ignore[attr-defined]  # the fixture's
        threading.Timer(0.5, s3.start).start()  # type: ignore[attr-defined]  # the fixture's

    batches = batches_of("s3://photos/{0,1}.tar", 20, outage)
    expected = batches_of(str(tmp_path / "{0,1}.tar"), 20, lambda: None)
    assert_nothing_is_lost(batches, expected)
