"""Training on what cannot seek: exact resume on the same layout, and only there."""

import json
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
import torch

from vqtrain.data.sources.find import training_and_validation
from vqtrain.data.sources.pipes import Stream
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import TrainingData

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

MakeData = Callable[..., TrainingData]
Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

STEPS = 24
SETTINGS = [
    f"trainer.max_steps={STEPS}",
    "trainer.log_every=3",
    "trainer.validate_every=8",
    "trainer.checkpoint_every=4",
    "trainer.keep_checkpoints=100",
    "trainer.accumulate=2",
]


@pytest.fixture
def shards(pictures: Path, tmp_path: Path) -> Path:
    """Three tars of 16 of the pictures each; the second one ends with no picture."""
    folder = tmp_path / "shards"
    folder.mkdir()
    files = sorted(pictures.glob("*.png"))
    for number in range(3):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for file in files[number::3]:
                tar.add(file, file.name)
            if number == 1:
                tar.addfile(tarfile.TarInfo("bad.png"))
    return folder


@pytest.fixture
def make_stream_data(make_data: MakeData, shards: Path) -> MakeData:
    """Make data that trains on the shards in sequence."""

    def make(**changes: object) -> TrainingData:
        data = make_data(**changes)
        commands = tuple(f"cat {shards}/{number}.tar" for number in range(3))
        data.training = Stream(commands=commands)
        return data

    return make


@pytest.mark.parametrize("workers", [0, 2])
def test_data_goes_on_from_what_was_consumed(make_stream_data: MakeData, workers: int) -> None:
    data = make_stream_data(num_workers=workers, flip=True)
    batches = list(islice(data.train_dataloader(), 8))
    state = data.places()
    assert state is not None
    for consumed in range(4):
        resumed = make_stream_data(num_workers=workers, flip=True)
        resumed.continue_from(state, world_size=1)
        for batch, expected in zip(resumed.train_dataloader(), batches[consumed:], strict=False):
            assert batch.keys == expected.keys
            assert torch.equal(batch.samples, expected.samples)
        data.on_before_batch_transfer(batches[consumed], 0)
        state = json.loads(json.dumps(data.places()))


def test_the_first_batches_are_those_that_are_trained_on(make_stream_data: MakeData) -> None:
    data = make_stream_data(num_workers=2)
    both = zip(data.first_batches(), data.train_dataloader(), strict=True)  # neither ends
    for first, trained in islice(both, 4):
        assert first.keys == trained.keys


def test_another_layout_is_refused(make_stream_data: MakeData) -> None:
    state = make_stream_data(num_workers=2).places()
    assert state is not None
    with pytest.raises(CheckpointError, match=r"1 x 2, got 1 x 3$"):
        make_stream_data(num_workers=3).continue_from(state, world_size=1)
    with pytest.raises(CheckpointError, match=r"1 x 2, got 2 x 2$"):
        make_stream_data(num_workers=2).continue_from(state, world_size=2)
    # This process alone reads as one worker does.
    state = make_stream_data(num_workers=0).places()
    assert state is not None
    make_stream_data(num_workers=1).continue_from(state, world_size=1)


def test_indexed_images_need_no_places(make_data: MakeData) -> None:
    data = make_data()
    data.on_before_batch_transfer(next(iter(data.first_batches())), 0)
    assert data.places() is None
    assert data.consumed == 1


def test_the_allowed_share_is_one_of_what_was_seen(
    make_stream_data: MakeData, make_bad_samples: Callable[[TrainingData], BadSamples]
) -> None:
    data = make_stream_data(batch_size=4)
    bad_samples = make_bad_samples(data)
    # 1 % of at least 1,000, and one standard deviation.
    assert bad_samples.limit == pytest.approx(10 + 10**0.5)
    data.consumed = 2_500
    assert bad_samples.total == 10_000
    assert bad_samples.limit == pytest.approx(100 + 100**0.5)


def test_pipes_train_in_sequence(shards: Path, pictures: Path) -> None:
    word = f"pipe:cat {shards}/{{0..2}}.tar"
    training, validation = training_and_validation([word, "pipe:cat x"], str(pictures))
    expected = [f"cat {shards}/{number}.tar" for number in range(3)]
    assert training == Stream(commands=(*expected, "cat x"))
    assert len(validation) == 48
    with pytest.raises(ConfigError, match="cannot hold out images of a pipe"):
        training_and_validation(word, "auto")
    for mixed in ([word, str(pictures)], {"images": word, "weight": 2}, [{"images": [word]}]):
        with pytest.raises(ConfigError, match="must name pipes alone"):
            training_and_validation(mixed, str(pictures))


def load(file: Path) -> dict[str, object]:
    return torch.load(file, weights_only=True)


def assert_equal(a: object, b: object, where: str = "") -> None:
    """Compare nested plain data and tensors bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        assert len(a) == len(b), where
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{where}/{number}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        assert a == b, where


@pytest.mark.ddp
@pytest.mark.soak
def test_a_killed_run_ends_where_an_unbroken_one_ends(
    shards: Path,
    pictures: Path,
    tiny: list[str],
    tmp_path: Path,
    vqtrain: Run,
    start_vqtrain: Start,
) -> None:
    words = [word for word in tiny if not word.startswith("data.train=")]
    words = ["train", f"data.train=pipe:cat {shards}/{{0..2}}.tar", f"data.val={pictures}", *words]
    words += [*SETTINGS, "data.num_workers=2", "trainer.devices=2"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    done = vqtrain(*words, f"run_dir={unbroken}")
    assert done.returncode == 0, done.stderr
    assert "data: 3 training shards in sequence, 48 validation images, 16 x 16 px" in done.stdout

    process = start_vqtrain(*words, f"run_dir={broken}")
    deadline = time.monotonic() + 120
    while not (broken / "checkpoints/step_00000008.ckpt").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    reached = max(int(file.stem[5:]) for file in (broken / "checkpoints").glob("step_*"))
    assert 8 <= reached < STEPS, "the kill came too late to show anything"
    refused = vqtrain(*words, f"run_dir={broken}", "resume=auto", "data.num_workers=1")
    assert refused.returncode == 2
    expected = "data.num_workers as before: 2 x 2, got 2 x 1"
    assert expected in refused.stderr
    done = vqtrain(*words, f"run_dir={broken}", "resume=auto")
    assert done.returncode == 0, done.stderr
    assert f"resuming at step {reached}" in done.stdout
    assert "warning" not in done.stdout

    a, b = (load(run / "checkpoints/last.ckpt") for run in (unbroken, broken))
    a["config"]["run_dir"] = b["config"]["run_dir"]  # type: ignore[index]  # plain data
    assert_equal(a, b)
    for name in ("metrics.jsonl", "bad_samples.jsonl"):
        assert (broken / name).read_bytes() == (unbroken / name).read_bytes()
    (line,) = (unbroken / "bad_samples.jsonl").read_text().splitlines()
    assert json.loads(line)["shard"] == f"pipe:cat {shards}/1.tar"


@pytest.mark.slow
def test_a_run_whose_commands_fail_ends_in_one_line(
    pictures: Path, tiny: list[str], vqtrain: Run
) -> None:
    words = [word for word in tiny if not word.startswith("data.train=")]
    pipe = "pipe:echo no such bucket >&2; exit 3"
    done = vqtrain("train", f"data.train={pipe}", f"data.val={pictures}", *words)
    assert (done.returncode, done.stderr) == (
        1,
        f"vqtrain: {pipe} gives no image (exit code 3: no such bucket)\n",
    )
