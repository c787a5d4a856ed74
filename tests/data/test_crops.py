"""Crops of pictures whose pixels say where they come from."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import center_crop

from vqtrain.data.crops import CROPS, native, random_resized, resize

SIZES = [(7, 5), (5, 7), (10, 7), (8, 3), (64, 48), (33, 100), (16, 16), (2, 9), (1, 1)]


def coordinates(width: int, height: int) -> Image.Image:
    """Make a picture with red = x and green = y."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_rule_gives_a_square(crop, size, mode):
    picture = noise(*size).convert(mode)
    for generator in (None, np.random.default_rng(0)):
        square = crop(picture, 8, generator)
        assert (square.size, square.mode) == ((8, 8), mode)


def test_native_takes_the_center_for_validation():
    square = np.asarray(native(coordinates(7, 5), 3, None))
    # (7 - 3) / 2 = 2 columns and (5 - 3) / 2 = 1 row are left out on each side.
    assert square[..., 0].tolist() == [[2, 3, 4]] * 3
    assert square[..., 1].tolist() == [[1] * 3, [2] * 3, [3] * 3]


def test_native_crops_every_place_in_training():
    generator = np.random.default_rng(0)
    squares = [np.asarray(native(coordinates(6, 4), 3, generator)) for _ in range(200)]
    places = {tuple(square[0, 0, :2].tolist()) for square in squares}
    assert places == {(x, y) for x in range(4) for y in range(2)}
    for square in squares:
        x, y = square[0, 0, 0], square[0, 0, 1]
        assert square[..., 0].tolist() == [[x, x + 1, x + 2]] * 3
        assert square[..., 1].tolist() == [[y] * 3, [y + 1] * 3, [y + 2] * 3]


@pytest.mark.parametrize("size", SIZES)
def test_validation_crops_equal_those_of_torchvision(size):
    picture = noise(*size)
    resized = Resize(6, InterpolationMode.BICUBIC)(picture)
    expected = np.asarray(CenterCrop(6)(resized))
    assert np.array_equal(np.asarray(resize(picture, 6, None)), expected)
    assert np.array_equal(np.asarray(random_resized(picture, 6, None)), expected)
    is_small = min(size) < 6
    expected = np.asarray(center_crop(resized if is_small else picture, [6, 6]))
    assert np.array_equal(np.asarray(native(picture, 6, None)), expected)


def test_resize_crops_along_the_long_side_in_training():
    picture = noise(64, 16)
    resized = np.asarray(picture.resize((32, 8), Image.Resampling.BICUBIC))
    generator = np.random.default_rng(0)
    places = set()
    for _ in range(300):
        square = np.asarray(resize(picture, 8, generator))
        fits = [x for x in range(25) if np.array_equal(resized[:, x : x + 8], square)]
        assert len(fits) == 1
        places.update(fits)
    assert places == set(range(25))


def test_random_resized_draws_area_and_aspect_ratio_from_their_ranges(monkeypatch):
    boxes = []

    def record(_: Image.Image, size: tuple, resample: int, box: tuple) -> Image.Image:
        assert resample == Image.Resampling.BICUBIC
        boxes.append(box)
        return Image.new("RGB", size)

    picture, generator = noise(1000, 800), np.random.default_rng(0)
    monkeypatch.setattr(Image.Image, "resize", record)
    for _ in range(500):
        random_resized(picture, 32, generator)
    left, top, right, bottom = np.array(boxes).T
    width, height = right - left, bottom - top
    assert left.min() >= 0
    assert top.min() >= 0
    assert right.max() <= 1000
    assert bottom.max() <= 800
    area, ratio = width * height / 800_000, width / height
    # Within the ranges up to rounding to whole pixels, and close to their ends.
    assert 0.498 < area.min() < 0.51
    assert 0.9 < area.max() <= 1
    assert 0.748 < ratio.min() < 0.78
    assert 1.3 < ratio.max() < 1.336


def test_random_resized_of_a_long_picture_takes_the_middle():
    # At least half of 100 x 10 px at a ratio of at most 4/3 is 20 px high, so nothing fits: the
    # middle round(10 * 4/3) = 13 columns from (100 - 13) // 2 = 43 on.
    picture = noise(100, 10)
    expected = picture.resize((8, 8), Image.Resampling.BICUBIC, box=(43, 0, 56, 10))
    assert random_resized(picture, 8, np.random.default_rng(0)) == expected
    # The same upright: the ratio is at least 3/4, so round(10 / (3/4)) = 13 rows.
    picture = noise(10, 100)
    expected = picture.resize((8, 8), Image.Resampling.BICUBIC, box=(0, 43, 10, 56))
    assert random_resized(picture, 8, np.random.default_rng(0)) == expected


@pytest.mark.parametrize("crop", CROPS.values(), ids=CROPS)
def test_the_same_numbers_give_the_same_crop(crop):
    picture = noise(40, 30)
    one, again, other = (crop(picture, 16, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


@pytest.mark.parametrize("crop", [native, resize])
def test_a_picture_too_thin_to_enlarge_is_refused(crop, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    # 1 x 20 px becomes 8 x 160 = 1,280 px.
    with pytest.raises(ValueError, match="1 x 20 px is too thin"):
        crop(noise(1, 20), 8, None)
