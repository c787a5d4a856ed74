"""Batches of clips, and of clips and images by weight: which, when, and of what size."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from vqtrain.data.loading.batches import Batch, TrainingBatches
from vqtrain.data.loading.buckets import clip_buckets
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.media import VIDEO
from vqtrain.data.settings.video import VideoData
from vqtrain.data.sources.find import open_both, open_samples
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import ConfigError

FRAMES = 3


def settings(**changes: object) -> VideoData:
    values = {"train": "-", "val": "-", "sampling": "permuted", "channels": 3, "image_size": 8}
    values |= {"crop": "resize", "flip": True, "background": "white", "frames": FRAMES}
    values |= {"fps": None, "stride": 1, "frames_per_loss": 1, "batch_size": 2, "num_workers": 0}
    return VideoData(**(values | {"max_bad_fraction": 0.01} | changes))


def training(index: SampleIndex, **changes: object) -> TrainingBatches:
    place = {"seed": 3, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0}
    if index.stills.any():
        place["buckets"] = clip_buckets(index.stills, (FRAMES, 8, 8))
    return TrainingBatches(index, settings=settings(), **(place | changes))


@pytest.fixture(scope="module")
def sources(tmp_path_factory, encode_video) -> dict[str, Path]:
    """Eight clips of 5 frames, of which one is damaged, and six images, of which one is."""
    folder = tmp_path_factory.mktemp("mixed")
    for name in ("clips", "images"):
        (folder / name).mkdir()
    for number in range(8):
        levels = [20 * number + 40 + frame for frame in range(0, 20, 4)]
        (folder / f"clips/c{number}.mp4").write_bytes(encode_video(levels))
    for number in range(6):
        Image.new("RGB", (9, 9), (30 * number,) * 3).save(folder / f"images/i{number}.png")
    return {"clips": folder / "clips", "images": folder / "images"}


def mixed(sources: dict[str, Path], weight: float = 1) -> list[dict[str, object]]:
    return [
        {"videos": str(sources["clips"]), "weight": 1},
        {"images": str(sources["images"]), "weight": weight},
    ]


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.keys == other.keys
    assert torch.equal(one.samples, other.samples)


def test_each_clip_comes_once_an_epoch_on_any_ranks_and_workers(sources) -> None:
    index = open_samples(str(sources["clips"]), VIDEO, role="training")
    alone = training(index, world_size=1)
    batches = [alone[number] for number in range(12)]
    for epoch in range(3):
        keys = [key for batch in batches[4 * epoch : 4 * epoch + 4] for key in batch.keys]
        assert sorted(keys) == [f"c{number}" for number in range(8)]
    # Another start and mirror in each epoch.
    seen = {
        batch.samples[batch.keys.index("c3")].numpy().tobytes()
        for batch in batches
        if "c3" in batch.keys
    }
    assert len(seen) > 1
    loaded = iter(Loader(training(index), num_workers=2))
    for batch in batches[:6]:
        assert_equal(next(loaded), batch)
    ranks = [training(index, rank=rank, world_size=2) for rank in range(2)]
    for number, batch in enumerate(batches):
        assert_equal(ranks[number % 2][number // 2], batch)
    assert_equal(training(index, start=10)[0], batches[5])


def test_images_among_clips_are_of_one_frame_in_batches_of_their_own(sources) -> None:
    index = open_samples(mixed(sources, weight=2), VIDEO, role="training")
    assert index.stills.tolist() == [False] * 8 + [True] * 6
    alone, size = training(index), 8 + 12
    batches = [alone[number] for number in range(30)]
    for batch in batches:
        (kind,) = {key[0] for key in batch.keys}
        assert batch.samples.shape == (2, 3, {"c": FRAMES, "i": 1}[kind], 8, 8)
    for first in range(0, 30, size // 2):
        seen = Counter(key for batch in batches[first : first + size // 2] for key in batch.keys)
        assert seen == {
            **{f"c{number}": 1 for number in range(8)},
            **{f"i{number}": 2 for number in range(6)},
        }
    ranks = [training(index, rank=rank, world_size=2, start=8) for rank in range(2)]
    for number, batch in enumerate(batches[4:12]):
        assert_equal(ranks[number % 2][number // 2], batch)


def test_a_bad_image_is_replaced_by_an_image_and_a_clip_by_a_clip(sources, tmp_path) -> None:
    for name in ("clips", "images"):
        (tmp_path / name).mkdir()
        for file in sources[name].iterdir():
            content = b"damaged" if file.stem in ("c0", "i0") else file.read_bytes()
            (tmp_path / name / file.name).write_bytes(content)
    index = open_samples(mixed({name: tmp_path / name for name in sources}), VIDEO, role="training")
    faults = set()
    for number in range(14):
        batch = training(index)[number]
        assert {key[0] for key in batch.keys} == {"c" if batch.samples.shape[2] > 1 else "i"}
        assert not {"c0", "i0"} & set(batch.keys)
        faults |= {fault.key for fault in batch.faults}
    assert faults == {"c0", "i0"}


def test_clips_alone_are_held_out(sources) -> None:
    train, val = open_both(mixed(sources), "auto", VIDEO, keys=("data.train", "data.val"))
    assert (len(val), val.stills.sum()) == (4, 0)
    assert (len(train), train.stills.sum()) == (10, 6)
    named = {index.key(number) for index in (train, val) for number in range(len(index))}
    assert len(named) == 14
    with pytest.raises(ConfigError, match=r"^data.val must be of clips: images as clips of one"):
        open_both(str(sources["clips"]), mixed(sources), VIDEO, keys=("data.train", "data.val"))


def test_impossible_mixtures_are_refused(sources) -> None:
    assert settings(train=mixed(sources)).has_images
    assert not settings(train=[{"videos": "demo", "weight": 2}]).has_images
    with pytest.raises(ConfigError, match=r"^images beside clips need data.sampling=permuted"):
        settings(train=mixed(sources), sampling="resampled")
    with pytest.raises(ConfigError, match="has the keys videos or images and weight, got"):
        open_samples([{"sounds": "a", "weight": 1}], VIDEO, role="training")
