"""Pictures inside a page: exact, each once, within a budget."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain.reports import images
from vqtrain.reports.images import (
    Budget,
    PageImages,
    encode,
    evenly,
    middle,
    read_image,
    split_strip,
)


def noise(seed: int, side: int = 16, width: int | None = None) -> np.ndarray:
    shape = (side, width or side, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decode(uri: str) -> np.ndarray:
    head, content = uri.split(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_an_image_comes_back_pixel_by_pixel() -> None:
    assert np.array_equal(decode(encode(noise(0))), noise(0))


def test_equal_images_are_kept_once() -> None:
    page = PageImages()
    budget = Budget(page, 10_000)
    assert budget.add([noise(0), noise(1)]) == [0, 1]
    assert budget.add([noise(1), noise(0), noise(0)]) == [1, 0, 0]
    assert len(page.uris) == 2


def test_images_that_do_not_fit_are_left_out_as_a_whole() -> None:
    page = PageImages()
    room = len(encode(noise(0))) + len(encode(noise(1)))
    budget = Budget(page, room)
    assert budget.add([noise(0)]) == [0]
    assert budget.add([noise(1), noise(2)]) is None
    assert budget.add([noise(1)]) is None  # nothing is tried after that
    assert (budget.left_out, len(page.uris)) == (2, 1)
    assert Budget(page, room).add([noise(1)]) == [1]


def test_of_a_large_image_the_middle_is_shown() -> None:
    image = np.zeros((10, 8, 3), np.uint8)
    image[5, 4] = 255
    assert middle(image, 4).shape == (4, 4, 3)
    assert middle(image, 4)[2, 2].tolist() == [255, 255, 255]
    assert middle(image, 20).shape == image.shape


def test_places_are_chosen_evenly_with_both_ends() -> None:
    assert evenly(100, 5) == [0, 25, 50, 74, 99]
    assert evenly(2, 5) == [0, 1]


def test_a_strip_is_cut_into_originals_and_reconstructions() -> None:
    above, below = ([noise(n, 16, 24) for n in range(first, first + 3)] for first in (0, 3))
    strip = np.concatenate([np.concatenate(above, 1), np.concatenate(below, 1)], 0)
    originals, made = split_strip(strip, [32, 48])
    assert [np.array_equal(a, b) for a, b in zip(originals, above, strict=True)] == [True] * 3
    assert [np.array_equal(a, b) for a, b in zip(made, below, strict=True)] == [True] * 3


def test_an_image_that_is_damaged_or_too_large_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(noise(0)[..., 0]).save(file)
    found = read_image(file)
    assert found is not None
    assert np.array_equal(found[..., 2], noise(0)[..., 0])
    monkeypatch.setattr(images, "MOST_PIXELS", 255)
    assert read_image(file) is None
    monkeypatch.setattr(images, "MOST_PIXELS", 256)
    file.write_bytes(file.read_bytes()[:-40])
    assert read_image(file) is None
    assert read_image(tmp_path / "missing.png") is None
