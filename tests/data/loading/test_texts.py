"""Texts next to images and inside tars, in the batches of their images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtrain.data.loading.batches import TrainingBatches, ValidationBatches
from vqtrain.data.loading.texts import find_texts
from vqtrain.data.settings.image import ImageData
from vqtrain.data.sources.find import open_samples
from vqtrain.data.sources.index import SampleIndex, make_index
from vqtrain.data.sources.pipes import Stream
from vqtrain.errors import DataError

SETTINGS = ImageData(
    train="-",
    val="-",
    sampling="permuted",
    image_size=4,
    channels=3,
    range=None,
    background="white",
    crop="native",
    flip=True,
    batch_size=2,
    num_workers=0,
    max_bad_fraction=0.5,
)
Make = Callable[[dict[str, bytes]], SampleIndex]


@pytest.fixture(params=["tar", "folder"])
def make(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    encode: Callable[..., bytes],
    write_tar: Callable[[Path, dict[str, bytes]], Path],
) -> Make:
    """Index six images, 0 to 5, with these texts."""

    def made(texts: dict[str, bytes]) -> SampleIndex:
        noise = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
        files = {f"{n}.png": encode(noise[n]) for n in range(6)}
        files |= {f"{n}.txt": text for n, text in texts.items()} | {"1.json": b"{}"}
        if request.param == "tar":
            tar = write_tar(tmp_path / "a.tar", dict(sorted(files.items())))
            return open_samples(str(tar), role="training")
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return open_samples(str(tmp_path), role="training")

    return made


TEXTS = {str(n): f" text {n}\n".encode() for n in range(6)}


def training(index: SampleIndex, **texts: object) -> TrainingBatches:
    place = {"seed": 3, "rank": 0, "world_size": 1, "ranks_per_node": 1, "start": 0}
    return TrainingBatches(index, settings=SETTINGS, **place, **texts)


def test_texts_come_with_their_images_and_change_no_order(make: Make) -> None:
    index = make(TEXTS)
    texts = find_texts(index, "data.train")
    with_texts, without = training(index, texts=texts), training(index)
    for number in range(4):
        batch, other = with_texts[number], without[number]
        assert batch.texts == [f"text {key}" for key in batch.keys]
        assert (batch.keys, other.texts) == (other.keys, [])
        assert torch.equal(batch.samples, other.samples)
    batches = ValidationBatches(index, transform=SETTINGS.transform, batch_size=4, texts=texts)
    assert [*batches[0].texts, *batches[1].texts] == [f"text {n}" for n in (0, 1, 2, 3, 4, 5, 5, 5)]


@pytest.mark.parametrize(
    ("text", "reason"), [(b"\xe9t\xe9", "no UTF-8, at byte 0"), (b" ", "empty")]
)
def test_a_bad_text_is_a_bad_sample(make: Make, text: bytes, reason: str) -> None:
    index = make({**TEXTS, "2": text})
    texts = find_texts(index, "data.val")
    batch = ValidationBatches(index, transform=SETTINGS.transform, batch_size=6, texts=texts)[0]
    assert batch.mask.tolist() == [n != 2 for n in range(6)]
    assert [(fault.key, fault.reason) for fault in batch.faults] == [("2", f"its .txt is {reason}")]
    keys = [key for n in range(3) for key in training(index, texts=texts)[n].keys]
    assert "2" not in keys


def test_images_without_texts_are_named_before_the_start(make: Make) -> None:
    index = make({"0": b"a", "2": b"c", "3": b"d"})
    with pytest.raises(DataError, match=r"^data\.train: 3 of 6 images have no \.txt, .* '1' of /"):
        find_texts(index, "data.train")


@pytest.mark.parametrize(
    "images",
    [
        Stream(commands=("cat a.tar",)),
        make_index(paths=["http://x/a.tar"], path_ids=[0], offsets=[0], sizes=[1], keys=[b"a"]),
    ],
    ids=["pipe", "remote"],
)
def test_texts_far_away_are_refused(images: SampleIndex | Stream) -> None:
    with pytest.raises(DataError, match="read from local folders and tars alone"):
        find_texts(images, "data.train")
