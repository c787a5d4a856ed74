"""Crops of pictures whose pixels say where they come from."""

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import CenterCrop, InterpolationMode, Resize
from torchvision.transforms.functional import center_crop

from vqtrain.data.decoding.crops import (
    CROPS,
    Geometry,
    adm,
    crop,
    ldm,
    maskbit,
    native,
    random_resized,
    resize,
)
from vqtrain.errors import BadSampleError

SIZES = [(7, 5), (5, 7), (10, 7), (8, 3), (64, 48), (33, 100), (16, 16), (2, 9), (1, 1)]


def coordinates(width: int, height: int) -> Image.Image:
    """Make a picture with red = x and green = y."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def part(rule, picture: Image.Image, target: tuple[int, int], generator=None) -> np.ndarray:
    """Crop by a rule; rows, columns, channels."""
    geometry = rule(picture.width, picture.height, target, generator)
    return crop(torch.from_numpy(np.array(picture)), geometry, target).permute(1, 2, 0).numpy()


def square(rule, picture: Image.Image, size: int, generator=None) -> np.ndarray:
    return part(rule, picture, (size, size), generator)


def bicubic(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize rows, then columns; Pillow by itself begins with what is less work.

    On noise the order shows, as bicubic overshoots and what is between is clamped.
    """
    rows = picture.resize((size[0], picture.height), Image.Resampling.BICUBIC)
    return rows.resize(size, Image.Resampling.BICUBIC)


def levels_apart(one: np.ndarray, other: Image.Image | np.ndarray) -> int:
    return int(np.abs(one.astype(int) - np.asarray(other)).max())


@pytest.mark.parametrize("rule", CROPS.values(), ids=CROPS)
@pytest.mark.parametrize("size", [*SIZES, (300, 1), (1, 300)])
def test_every_rule_gives_a_crop_inside_the_picture(rule, size):
    for target, seed in product([(8, 8), (8, 12), (15, 8)], [None, *range(5)]):
        generator = None if seed is None else np.random.default_rng(seed)
        geometry = rule(*size, target, generator)
        left, top, width, height = geometry.box
        assert min(left, top) >= 0
        assert min(width, height) >= 1
        assert left + width <= size[0]
        assert top + height <= size[1]
        for offset, resized, kept in zip(geometry.offset, geometry.size, target, strict=True):
            assert 0 <= offset <= resized - kept


@pytest.mark.parametrize("size", [*SIZES, (16, 9)])
@pytest.mark.parametrize("target", [(6, 9), (12, 5)])
def test_a_crop_that_is_no_square_is_the_largest_of_its_shape(size, target):
    picture = noise(*size)
    scale = max(target[0] / size[0], target[1] / size[1])
    resized = bicubic(picture, tuple(int(side * scale + 1e-9) for side in size))
    expected = center_crop(resized, [target[1], target[0]])
    for rule in (resize, random_resized, maskbit, ldm):
        assert levels_apart(part(rule, picture, target), expected) <= 1


def test_random_parts_have_about_the_shape_of_the_crop():
    generator = np.random.default_rng(0)
    boxes = [random_resized(1000, 500, (64, 32), generator).box for _ in range(200)]
    ratio = np.array([width / height for _, _, width, height in boxes])
    assert 2 * 0.748 < ratio.min() < 2 * 0.80  # 3/4 to 4/3 of 64 / 32
    assert 2 * 1.27 < ratio.max() < 2 * 1.336
    boxes = [ldm(1000, 400, (64, 32), generator).box for _ in range(200)]
    assert all(abs(width - 2 * height) <= 1 and width >= 400 for _, _, width, height in boxes)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("rule", CROPS.values(), ids=CROPS)
def test_any_number_of_channels_is_cut_like_each_alone(rule, dtype, channels):
    pixels = torch.from_numpy(np.array(noise(50, 37)))[..., :1]
    geometry = rule(50, 37, (16, 16), np.random.default_rng(0))
    alone = crop(pixels.to(dtype), geometry, (16, 16))
    assert (alone.shape, alone.dtype) == ((1, 16, 16), dtype)
    together = crop(pixels.to(dtype).expand(-1, -1, channels), geometry, (16, 16))
    # The vectorized resampler of few channels rounds uint8 otherwise.
    far = (together.float() - alone.float()).abs().max()
    assert far <= (1 if dtype == torch.uint8 else 1e-4)


def test_native_takes_the_center_for_validation():
    pixels = square(native, coordinates(7, 5), 3)
    # (7 - 3) / 2 = 2 columns and (5 - 3) / 2 = 1 row are left out on each side.
    assert pixels[..., 0].tolist() == [[2, 3, 4]] * 3
    assert pixels[..., 1].tolist() == [[1] * 3, [2] * 3, [3] * 3]


def test_native_crops_every_place_in_training():
    generator = np.random.default_rng(0)
    squares = [square(native, coordinates(6, 4), 3, generator) for _ in range(200)]
    places = {tuple(pixels[0, 0, :2].tolist()) for pixels in squares}
    assert places == {(x, y) for x in range(4) for y in range(2)}
    for pixels in squares:
        x, y = pixels[0, 0, 0], pixels[0, 0, 1]
        assert pixels[..., 0].tolist() == [[x, x + 1, x + 2]] * 3
        assert pixels[..., 1].tolist() == [[y] * 3, [y + 1] * 3, [y + 2] * 3]


@pytest.mark.parametrize("size", SIZES)
def test_validation_crops_equal_those_of_torchvision(size):
    picture = noise(*size)
    resized = Resize(6, InterpolationMode.BICUBIC)(picture)
    expected = CenterCrop(6)(resized)
    # One level: torch and Pillow round their fixed-point sums differently.
    for rule in (resize, random_resized, maskbit, ldm):
        assert levels_apart(square(rule, picture, 6), expected) <= 1
    is_small = min(size) < 6
    expected = center_crop(resized if is_small else picture, [6, 6])
    assert levels_apart(square(native, picture, 6), expected) <= (1 if is_small else 0)


@pytest.mark.parametrize(
    "size", [(500, 375), (513, 400), (600, 600), (33, 37), (20, 90), (260, 131)]
)
def test_a_part_is_resized_as_by_pillow(size):
    picture = noise(*size)
    for seed in range(5):
        geometry = random_resized(*size, (32, 32), np.random.default_rng(seed))
        left, top, width, height = geometry.box
        box = (left, top, left + width, top + height)
        expected = bicubic(picture.crop(box), (32, 32))
        pixels = square(random_resized, picture, 32, np.random.default_rng(seed))
        assert levels_apart(pixels, expected) <= 1


@pytest.mark.parametrize(("area_frac", "rule"), [((0.5, 1), random_resized), ((0.8, 1), maskbit)])
def test_random_parts_draw_area_and_aspect_ratio_from_their_ranges(rule, area_frac):
    generator = np.random.default_rng(0)
    boxes = [rule(1000, 800, (32, 32), generator).box for _ in range(500)]
    left, top, width, height = np.array(boxes).T
    assert left.min() >= 0
    assert top.min() >= 0
    assert (left + width).max() <= 1000
    assert (top + height).max() <= 800
    area, ratio = width * height / 800_000, width / height
    # Within the ranges up to rounding to whole pixels, and close to their ends.
    assert area_frac[0] - 0.002 < area.min() < area_frac[0] + 0.01
    assert 0.9 < area.max() <= 1
    if rule is random_resized:  # at 80 % of the area not every ratio fits
        assert 0.748 < ratio.min() < 0.78
        assert 1.3 < ratio.max() < 1.336


def test_random_resized_of_a_long_picture_takes_the_middle():
    # At least half of 100 x 10 px at a ratio of at most 4/3 is 20 px high, so nothing fits: the
    # middle round(10 * 4/3) = 13 columns from (100 - 13) // 2 = 43 on.
    geometry = random_resized(100, 10, (8, 8), np.random.default_rng(0))
    assert geometry == Geometry(box=(43, 0, 13, 10), size=(8, 8), offset=(0, 0))
    # The same upright: the ratio is at least 3/4, so round(10 / (3/4)) = 13 rows.
    assert random_resized(10, 100, (8, 8), np.random.default_rng(0)).box == (0, 43, 10, 13)


def test_resize_crops_along_the_long_side_in_training():
    generator = np.random.default_rng(0)
    geometries = [resize(64, 16, (8, 8), generator) for _ in range(300)]
    assert {geometry.offset for geometry in geometries} == {(x, 0) for x in range(25)}
    assert {(geometry.box, geometry.size) for geometry in geometries} == {((0, 0, 64, 16), (32, 8))}


def test_boxes_of_adm_by_hand():
    # 500 -> 250 -> 125 < 2 * 64, so 375 -> 187 -> 93; 93 becomes 64 and 125 * 64 / 93 = 86.02.
    geometry = adm(500, 375, (64, 64), None)
    assert geometry.box == (0, 0, 500, 375)
    assert geometry.size == (86, 64)
    assert geometry.offset == (11, 0)  # (86 - 64) // 2
    # Squares of 1 / 1 to 1 / 0.8 of the short side: it is 64 to 80 px long.
    generator = np.random.default_rng(0)
    geometries = [adm(500, 375, (64, 64), generator) for _ in range(500)]
    assert {min(geometry.size) for geometry in geometries} == set(range(64, 81))


def published_adm(picture: Image.Image, size: int, target: int, left: int, top: int) -> np.ndarray:
    """Do with Pillow what the paper's loader does."""
    while min(picture.size) >= 2 * target:
        halved = (picture.width // 2, picture.height // 2)
        picture = picture.resize(halved, Image.Resampling.BOX)
    scale = target / min(picture.size)
    resized = (round(picture.width * scale), round(picture.height * scale))
    picture = bicubic(picture, resized)
    return np.asarray(picture)[top : top + size, left : left + size]


@pytest.mark.parametrize(
    "size", [(200, 160), (198, 159), (66, 64), (67, 130), (131, 300), (20, 30), (64, 64)]
)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_adm_equals_the_published_loader(size, seed):
    picture = noise(*size)
    generators = [None if seed is None else np.random.default_rng(seed) for _ in range(2)]
    geometry = adm(*size, (32, 32), generators[0])
    expected = published_adm(picture, 32, min(geometry.size), *geometry.offset)
    # The halvings are equal; in the last step rows and columns round by a level each.
    assert levels_apart(square(adm, picture, 32, generators[1]), expected) <= 2


@pytest.mark.parametrize("size", [(64, 64), (66, 70), (65, 67), (67, 129), (131, 64)])
def test_halving_equals_pillows_box(size):
    picture = noise(*size)
    halved = (size[0] // 2, size[1] // 2)
    geometry = Geometry(box=(0, 0, *size), size=halved, offset=(0, 0), halve=True)
    pixels = torch.from_numpy(np.array(picture))
    expected = torch.from_numpy(np.array(picture.resize(halved, Image.Resampling.BOX)))
    expected = expected[: min(halved), : min(halved)]
    whole = _whole(pixels, geometry)
    assert torch.equal(whole, expected)
    # Floats are not rounded between columns and rows: half a level each.
    assert (_whole(pixels.float(), geometry) - expected.float()).abs().max() <= 1


def _whole(pixels: Tensor, geometry: Geometry) -> Tensor:
    return crop(pixels, geometry, (min(geometry.size),) * 2).permute(1, 2, 0)


def test_ldm_takes_squares_of_at_least_half_the_short_side():
    generator = np.random.default_rng(0)
    boxes = np.array([ldm(300, 200, (32, 32), generator).box for _ in range(500)])
    assert (boxes[:, 2] == boxes[:, 3]).all()
    assert boxes[:, 2].min() in range(100, 103)
    assert boxes[:, 2].max() in range(197, 201)


@pytest.mark.parametrize("rule", CROPS.values(), ids=CROPS)
def test_the_same_numbers_give_the_same_crop(rule):
    one, again, other = (rule(90, 70, (16, 16), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


@pytest.mark.parametrize("rule", [native, resize, adm])
def test_a_picture_too_thin_to_enlarge_is_refused(rule, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    # 1 x 20 px becomes 8 x 160 = 1,280 px.
    with pytest.raises(BadSampleError, match="1 x 20 px is too thin for crops of 8 x 8 px"):
        rule(1, 20, (8, 8), None)


def test_a_reduced_box_covers_the_same_part():
    geometry = Geometry(box=(100, 51, 301, 200), size=(64, 64), offset=(0, 0))
    # Pillow makes 1001 x 500 px to ceil(1001 / 4) = 251 x 125. From 100 / 4 = 25 to 401 / 4 = 100,
    # and from 51 / 4 = 13 to 251 / 4 = 63.
    assert geometry.reduced(4, width=251, height=125).box == (25, 13, 75, 50)
    # The last column stays inside.
    geometry = Geometry(box=(0, 0, 1001, 500), size=(64, 64), offset=(0, 0))
    assert geometry.reduced(8, width=126, height=63).box == (0, 0, 125, 62)


def test_one_pixel_becomes_at_least_one():
    geometry = Geometry(box=(7, 7, 1, 1), size=(1, 1), offset=(0, 0))
    for factor in (2, 4, 8):
        left, top, width, height = geometry.reduced(factor, width=1, height=1).box
        assert (left, top, width, height) == (0, 0, 1, 1)


def test_reduction_is_that_of_the_side_with_less_to_spare():
    geometry = Geometry(box=(0, 0, 100, 60), size=(10, 20), offset=(0, 0))
    assert geometry.reduction() == 3  # 60 / 20 < 100 / 10
