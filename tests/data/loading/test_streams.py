"""Images read in sequence: their order, where readers are, faults, and processes."""

import io
import signal
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from vqtrain.data.loading import streams
from vqtrain.data.loading.batches import Batch
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.loading.streams import Cursor, StreamBatches
from vqtrain.data.media import SOUND
from vqtrain.data.settings.image import ImageData
from vqtrain.data.settings.sound import SoundData
from vqtrain.data.sources.pipes import Stream
from vqtrain.errors import DataError

pytestmark = [
    # torch warns of more workers than cores, of which the machine may have one.
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    # Python 3.12 and later warn of a fork beside torch's threads, which workers do not touch.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

MakeStream = Callable[..., Stream]


@pytest.fixture
def make_stream(tmp_path, encode, write_tar) -> MakeStream:
    """Make a stream of shards a, b, c and so on, of so many noisy 12 x 12 px pictures each."""

    def make(*sizes: int) -> Stream:
        random = np.random.default_rng(0)
        commands = []
        for letter, size in zip("abcdefgh", sizes, strict=False):
            noise = random.integers(0, 256, (size, 12, 12, 3), dtype=np.uint8)
            members = {f"{letter}{i}.png": encode(noise[i]) for i in range(size)}
            commands.append(f"cat {write_tar(tmp_path / f'{letter}.tar', members)}")
        return Stream(commands=tuple(commands))

    return make


def load(
    stream: Stream, *, cursors: list[Cursor] | None = None, readers: int = 1, **changes: object
) -> StreamBatches:
    values = {"seed": 3, "cursors": [Cursor.first(0)] if cursors is None else cursors}
    values |= {key: changes.pop(key) for key in values.keys() & changes.keys()}
    return StreamBatches(stream, settings=settings(**changes), readers=readers, **values)


def settings(**changes: object) -> ImageData:
    values = {"train": "-", "val": "-", "image_size": 8, "channels": 3, "crop": "native"}
    values |= {"flip": True, "batch_size": 2, "num_workers": 0, "sampling": "permuted"}
    values |= {"range": None, "background": "white", "max_bad_fraction": 0.01}
    return ImageData(**(values | changes))


def loader(stream: Stream, *, num_workers: int, rank: int = 0, world_size: int = 1) -> Loader:
    each = max(1, num_workers)
    cursors = [Cursor.first(rank * each + worker) for worker in range(each)]
    batches = load(stream, readers=world_size * each, cursors=cursors)
    return Loader(batches, num_workers=num_workers)


def keys_of(batches: StreamBatches, count: int) -> list[str]:
    return [key for number in range(count) for key in batches[number].keys]


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.keys == other.keys
    assert torch.equal(one.samples, other.samples)
    assert one.cursor == other.cursor


def assert_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_sample_comes_once_an_epoch(make_stream, num_workers):
    stream = make_stream(*[4] * 8)
    ranks = [loader(stream, num_workers=num_workers, rank=r, world_size=2) for r in range(2)]
    # 8 batches of 2 on each rank are an epoch of 32.
    by_rank = [[batch.keys for batch in islice(rank, 24)] for rank in ranks]
    everything = sorted(f"{letter}{i}" for letter in "abcdefgh" for i in range(4))
    epochs = []
    for begin in (0, 8, 16):
        keys = [key for rank in by_rank for batch in rank[begin : begin + 8] for key in batch]
        assert sorted(keys) == everything
        epochs.append(tuple(keys))
    assert len(set(epochs)) == 3


def test_workers_bring_what_this_process_brings(make_stream):
    stream = make_stream(5, 3, 4)
    expected = load(stream, cursors=[Cursor.first(0), Cursor.first(1)], readers=2)
    for number, batch in enumerate(islice(loader(stream, num_workers=2), 9)):
        assert_equal(batch, expected[number])


def test_the_sequence_begins_again_with_each_iter(make_stream):
    batches = loader(make_stream(5, 3), num_workers=0)
    first = list(islice(batches, 5))
    for batch, again in zip(first, islice(batches, 5), strict=True):
        assert_equal(batch, again)


@pytest.mark.parametrize("readers", [1, 2, 3])
@pytest.mark.parametrize("buffer_samples", [3, 1024])
def test_a_restart_goes_on_with_the_same_batches(make_stream, monkeypatch, readers, buffer_samples):
    monkeypatch.setattr(streams, "BUFFER_SAMPLES", buffer_samples)
    stream = make_stream(5, 3, 4, 2)
    first = [Cursor.first(number) for number in range(readers)]
    whole = load(stream, readers=readers, cursors=first)
    expected = [whole[number] for number in range(16)]
    cursors = deque(first, maxlen=readers)
    for consumed in range(10):
        restarted = load(stream, readers=readers, cursors=list(cursors))
        for number in range(6):
            assert_equal(restarted[number], expected[consumed + number])
        cursors.append(Cursor(*expected[consumed].cursor))


def test_a_cursor_says_where_the_buffer_began(make_stream, monkeypatch):
    monkeypatch.setattr(streams, "BUFFER_SAMPLES", 4)
    batches = load(make_stream(6), readers=1)
    cursors = [batches[number].cursor for number in range(6)]
    # Buffers of 4 and of 2 samples, as an epoch ends; in each epoch the shard begins anew.
    assert cursors == [
        (0, 0, 0, 2, 2), (0, 0, 0, 4, 4), (0, 4, 1, 2, 6),
        (1, 0, 2, 2, 8), (1, 0, 2, 4, 10), (1, 4, 3, 2, 12),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", ["BUFFER_SAMPLES", "BUFFER_BYTES"])
def test_samples_are_shuffled_buffer_by_buffer(make_stream, monkeypatch, limit):
    stream = make_stream(12)
    size = len(Path(stream.commands[0].split()[1]).read_bytes()) // 12  # with its header, too large
    monkeypatch.setattr(streams, limit, 4 if limit == "BUFFER_SAMPLES" else 3 * size)
    keys = keys_of(load(stream), 6)
    if limit == "BUFFER_SAMPLES":
        for begin in (0, 4, 8):
            assert sorted(keys[begin : begin + 4]) == sorted(f"a{begin + i}" for i in range(4))
    assert keys != [f"a{i}" for i in range(12)]
    assert set(keys[:8]) != {f"a{i}" for i in range(12)}
    assert sorted(keys) == sorted(f"a{i}" for i in range(12))


def test_no_more_than_two_buffers_are_held(make_stream, monkeypatch):
    monkeypatch.setattr(streams, "BUFFER_SAMPLES", 4)
    reads: list[str] = []
    original = streams.Shard.samples

    def spy(self):
        for key, encoded in original(self):
            reads.append(key)
            yield key, encoded

    monkeypatch.setattr(streams.Shard, "samples", spy)
    batches = load(make_stream(20), batch_size=1)
    # The first buffer of 4, and 1 of the next for each that is taken; one is always read ahead.
    held = [batches[number] and len(reads) - number - 1 for number in range(12)]
    assert max(held) <= 4 + 1


def test_crops_are_those_of_the_sample_not_of_the_picture(make_stream):
    batches = load(make_stream(1), batch_size=4)[0]
    assert len({image.numpy().tobytes() for image in batches.samples}) > 1


def test_the_seed_decides_everything(make_stream):
    stream = make_stream(6, 5, 4)
    first = load(stream, batch_size=12)[0]
    torch.manual_seed(1)
    assert_equal(load(stream, batch_size=12)[0], first)
    assert load(stream, batch_size=12, seed=4)[0].keys != first.keys


def test_readers_may_be_more_than_shards(make_stream):
    stream = make_stream(3)
    cursors = [Cursor.first(number) for number in range(4)]
    batches = load(stream, readers=4, cursors=cursors, batch_size=3)
    orders = [batches[number].keys for number in range(8)]
    assert all(sorted(keys) == ["a0", "a1", "a2"] for keys in orders)
    assert len(set(map(tuple, orders))) > 1


def test_resampled_shards_are_drawn_with_replacement(make_stream):
    stream = make_stream(1, 1, 1, 1)
    drawn = keys_of(load(stream, sampling="resampled", batch_size=4), 20)
    epochs = [drawn[begin : begin + 4] for begin in range(0, 80, 4)]
    assert any(len(set(epoch)) < 4 for epoch in epochs)
    counts = Counter(drawn)
    # 20 of each are expected, with a standard deviation of 4.
    assert all(5 < counts[key] < 35 for key in ("a0", "b0", "c0", "d0"))


def test_a_picture_that_cannot_be_decoded_is_skipped(tmp_path, make_stream, write_tar):
    good = make_stream(3)
    bad = write_tar(tmp_path / "bad.tar", {"x.png": b"no picture", "y.png": b""})
    stream = Stream(commands=(*good.commands, f"cat {bad}"))
    batches = [load(stream, batch_size=3)[0] for _ in range(2)]
    assert_equal(*batches)
    assert sorted(batches[0].keys) == ["a0", "a1", "a2"]
    row = load(stream, batch_size=3)
    faults = [fault for number in range(2) for fault in row[number].faults]
    assert {(fault.shard, fault.key) for fault in faults} == {
        (f"pipe:cat {bad}", "x"),
        (f"pipe:cat {bad}", "y"),
    }
    # The cursors count what was skipped, so that a restart does not read it again.
    cursors = [Cursor.first(0)]
    whole = load(stream, batch_size=3)
    for number in range(4):
        batch = whole[number]
        assert_equal(load(stream, batch_size=3, cursors=cursors)[0], batch)
        cursors = [Cursor(*batch.cursor)]


def test_sounds_are_read_as_images_are(tmp_path, write_tar):
    members = {"x.wav": b"no sound", "x.txt": b"a text"}
    for number in range(3):
        file = io.BytesIO()
        soundfile.write(file, np.full(100, number / 8), 8000, format="WAV", subtype="FLOAT")
        members[f"{number}.wav"] = file.getvalue()
    command = f"cat {write_tar(tmp_path / 'sounds.tar', members)}"
    of_sounds = SoundData(
        train="-",
        val="-",
        sampling="permuted",
        channels=1,
        batch_size=3,
        num_workers=0,
        max_bad_fraction=0.5,
        sample_rate=8000,
        length=50,
    )
    batches = StreamBatches(
        Stream(commands=(command,), media=SOUND),
        settings=of_sounds,
        seed=3,
        cursors=[Cursor.first(0)],
        readers=1,
    )
    for batch in (batches[0], batches[1]):  # two epochs
        assert batch.samples.shape == (3, 1, 50)
        assert sorted(batch.keys) == ["0", "1", "2"]
        assert (batch.samples[:, 0, 0] * 8).tolist() == [float(key) for key in batch.keys]
    faults = {(fault.key, fault.reason) for fault in batches[0].faults + batches[1].faults}
    assert faults == {("x", "no wav, flac, ogg or mp3")}


def test_of_a_shard_that_fails_the_beginning_is_used(make_stream):
    (whole,) = make_stream(4).commands
    cut = f"{whole} | head -c 2500"
    failing = f"{whole}; echo 'connection lost' >&2; exit 7"
    stream = Stream(commands=(cut, failing, "exit 9", "tar -c -T /dev/null"))
    batches = load(stream, batch_size=5)
    faults = {
        (fault.shard, fault.key, fault.reason.partition(" (")[0])
        for number in range(4)
        for fault in batches[number].faults
    }
    assert faults == {
        (f"pipe:{cut}", "", "the tar is cut off or damaged"),
        (f"pipe:{failing}", "", "exit code 7: connection lost"),
        ("pipe:exit 9", "", "exit code 9"),
        ("pipe:tar -c -T /dev/null", "", "the tar holds no image"),
    }


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_without_pictures_ends_in_one_line(num_workers):
    stream = Stream(commands=("echo 'no such bucket' >&2; exit 3", "echo denied >&2; exit 3"))
    expected = r"^pipe:echo .*3 gives no image \(exit code 3: \w+.*\), nor do the \d shards"
    with pytest.raises(DataError, match=expected):
        next(iter(loader(stream, num_workers=num_workers)))


def test_one_bad_shard_among_few_does_not_end_a_run(make_stream):
    stream = Stream(commands=(*make_stream(1).commands, "false"))
    # Reader 0 of 2 meets either at random, several times in a row.
    keys = keys_of(load(stream, readers=2), 20)
    assert keys == ["a0"] * 40


def test_a_hundred_bad_pictures_in_a_row_end_a_run(tmp_path, write_tar):
    bad = write_tar(tmp_path / "bad.tar", {"x.png": b"no picture"})
    with pytest.raises(DataError, match=r"^100 images in a row .* 'x' in pipe:cat "):
        load(Stream(commands=(f"cat {bad}",)))[0]


def test_what_is_known_of_a_stream():
    stream = Stream(commands=("cat a", "cat b"))
    assert stream.digest == Stream(commands=("cat a", "cat b")).digest
    assert len({stream.digest, Stream(commands=("cat b", "cat a")).digest}) == 2
    assert stream.faults == ()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_no_command_outlives_its_loader(make_stream, tmp_path, num_workers):
    commands = make_stream(6, 6).commands
    notes = tmp_path / "pids"
    endless = tuple(f"echo $$ >> {notes}; while {c}; do :; done" for c in commands)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BUFFER_SAMPLES", 2)
        batches = iter(loader(Stream(commands=endless), num_workers=num_workers))
        next(batches)
        pids = notes.read_text().split()
        assert pids
        del batches
    for pid in pids:
        assert_gone(int(pid))


SCRIPT = """
import os, signal, sys
from pathlib import Path
from vqtrain.data.loading import streams
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.media import SOUND
from vqtrain.data.settings.image import ImageData
from vqtrain.data.settings.sound import SoundData
from vqtrain.data.loading.streams import Cursor, StreamBatches
from vqtrain.data.sources.pipes import Stream

streams.BUFFER_SAMPLES = 2
ending, workers, *commands = sys.argv[1:]
settings = ImageData(
    train="-", val="-", image_size=8, channels=3, crop="native", flip=True, batch_size=1,
    num_workers=int(workers), sampling="permuted", range=None, background="white",
    max_bad_fraction=0.01,
)
cursors = [Cursor.first(number) for number in range(max(1, int(workers)))]
loaded = StreamBatches(
    Stream(commands=tuple(commands)),
    settings=settings, seed=0, readers=len(cursors), cursors=cursors,
)
batches = iter(Loader(loaded, num_workers=int(workers)))
next(batches)
if ending == "error":
    raise SystemExit("failed")
if ending == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", ["0", "2"])
@pytest.mark.parametrize("ending", ["end", "error", "kill"])
def test_no_command_outlives_the_process(make_stream, start_python, tmp_path, ending, num_workers):
    commands = make_stream(6, 6).commands
    notes = tmp_path / "pids"
    # What is killed cannot kill: then a command ends as it writes to nobody.
    rest = f"while {commands[0]}; do :; done" if ending == "kill" else "exec sleep 1000"
    waiting = [f"echo $$ >> {notes}; {command}; {rest}" for command in commands]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = start_python(script, ending, num_workers, *waiting, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=60)
    codes = {"end": 0, "error": 1, "kill": -signal.SIGKILL}
    assert process.returncode == codes[ending], errors
    pids = notes.read_text().split()
    assert len(pids) >= max(1, int(num_workers))
    for pid in pids:
        assert_gone(int(pid))
