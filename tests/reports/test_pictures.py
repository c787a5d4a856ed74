"""Pictures inside a page: exact, each once, within a budget."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain.reports import pictures
from vqtrain.reports.pictures import Album, cut_strip, encode, evenly, middle, read_picture


def noise(seed: int, side: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def decode(uri: str) -> np.ndarray:
    head, content = uri.split(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))


def test_a_picture_comes_back_pixel_by_pixel() -> None:
    assert np.array_equal(decode(encode(noise(0))), noise(0))


def test_equal_pictures_are_kept_once() -> None:
    album = Album()
    shelf = album.shelf(10_000)
    assert shelf.add([noise(0), noise(1)]) == [0, 1]
    assert shelf.add([noise(1), noise(0), noise(0)]) == [1, 0, 0]
    assert len(album.uris) == 2


def test_pictures_that_do_not_fit_are_left_out_as_a_whole() -> None:
    album = Album()
    room = len(encode(noise(0))) + len(encode(noise(1)))
    shelf = album.shelf(room)
    assert shelf.add([noise(0)]) == [0]
    assert shelf.add([noise(1), noise(2)]) is None
    assert shelf.add([noise(1)]) is None  # nothing is tried after that
    assert (shelf.left_out, len(album.uris)) == (2, 1)
    assert album.shelf(room).add([noise(1)]) == [1]


def test_of_a_large_picture_the_middle_is_shown() -> None:
    picture = np.zeros((10, 8, 3), np.uint8)
    picture[5, 4] = 255
    assert middle(picture, 4).shape == (4, 4, 3)
    assert middle(picture, 4)[2, 2].tolist() == [255, 255, 255]
    assert middle(picture, 20).shape == picture.shape


def test_places_are_chosen_evenly_with_both_ends() -> None:
    assert evenly(100, 5) == [0, 25, 50, 74, 99]
    assert evenly(2, 5) == [0, 1]


def test_a_strip_is_cut_into_originals_and_reconstructions() -> None:
    above, below = [noise(n) for n in range(3)], [noise(n) for n in range(3, 6)]
    strip = np.concatenate([np.concatenate(above, 1), np.concatenate(below, 1)], 0)
    originals, made = cut_strip(strip)
    assert [np.array_equal(a, b) for a, b in zip(originals, above, strict=True)] == [True] * 3
    assert [np.array_equal(a, b) for a, b in zip(made, below, strict=True)] == [True] * 3


def test_a_picture_that_is_damaged_or_too_large_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(noise(0)[..., 0]).save(file)
    found = read_picture(file)
    assert found is not None
    assert np.array_equal(found[..., 2], noise(0)[..., 0])
    monkeypatch.setattr(pictures, "MOST_PIXELS", 255)
    assert read_picture(file) is None
    monkeypatch.setattr(pictures, "MOST_PIXELS", 256)
    file.write_bytes(file.read_bytes()[:-40])
    assert read_picture(file) is None
    assert read_picture(tmp_path / "missing.png") is None
