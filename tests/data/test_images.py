"""Decoding of every kind of picture that people have."""

import io

import numpy as np
import pytest
from PIL import Image

from vqtrain.data.images import load_pixels, upright
from vqtrain.data.scan import index_pictures
from vqtrain.errors import DataError

ORIENTATION = 0x0112


@pytest.fixture
def load(tmp_path):
    """Load encoded bytes as the only picture of a folder."""

    def load(encoded: bytes, **options: object) -> np.ndarray:
        (tmp_path / "odd one.png").write_bytes(encoded)
        index = index_pictures([tmp_path / "odd one.png"], root=tmp_path)
        defaults = {"image_size": 2, "channels": 3, "crop": "native", "flip": False}
        return load_pixels(index, 0, **(defaults | {"generator": None} | options))

    return load


def opened(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded))


def decoded(encoded: bytes, channels: int = 3) -> list:
    return np.asarray(upright(opened(encoded), channels=channels)).tolist()


def test_pixels_are_channels_first(load, encode):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    loaded = load(encode(pixels))
    assert loaded.dtype == np.uint8
    assert loaded.tolist() == [[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8, 11]]]


def test_gray_is_one_channel_or_repeated(load, encode):
    gray = np.array([[0, 50], [100, 255]], dtype=np.uint8)
    assert load(encode(gray), channels=1).tolist() == [gray.tolist()]
    assert load(encode(gray), channels=3).tolist() == [gray.tolist()] * 3


def test_color_becomes_luma(encode):
    # ITU-R 601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    assert decoded(encode(np.array([[[200, 100, 50]]], dtype=np.uint8)), 1) == [[124]]


def test_transparency_is_laid_on_white(encode):
    # Half covered black: 255 * (1 - 128/255) = 127; not covered at all: white.
    rgba = np.array([[[0, 0, 0, 128], [9, 9, 9, 0], [1, 2, 3, 255]]], dtype=np.uint8)
    assert decoded(encode(rgba)) == [[[127] * 3, [255] * 3, [1, 2, 3]]]
    gray_alpha = Image.fromarray(rgba).convert("LA")
    assert decoded(encode(gray_alpha), 1)[0][:2] == [127, 255]


def test_a_palette_is_looked_up(encode):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    assert decoded(encode(picture)) == [[[10, 20, 30], [40, 50, 60]]]
    assert decoded(encode(picture, transparency=1)) == [[[10, 20, 30], [255, 255, 255]]]
    # One byte of transparency for each color.
    assert decoded(encode(picture, transparency=b"\x00\xff")) == [[[255] * 3, [40, 50, 60]]]
    assert decoded(encode(picture, "GIF")) == [[[10, 20, 30], [40, 50, 60]]]


def test_a_transparent_color_is_white(encode):
    picture = np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)
    assert decoded(encode(picture, transparency=(4, 5, 6))) == [[[1, 2, 3], [255] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_to_8(encode, kind):
    # v / 257, rounded: 25,828 / 257 = 100.498 and 25,829 / 257 = 100.502.
    values = np.array([[0, 257, 25_700, 25_828, 25_829, 65_535]], dtype=np.uint16)
    assert decoded(encode(values, kind), 1) == [[0, 1, 100, 100, 101, 255]]
    assert decoded(encode(values, kind), 3)[0][2] == [100, 100, 100]


def test_one_bit_is_black_and_white(encode):
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert decoded(encode(picture), 1) == [[0, 255]]


def test_cmyk_is_converted(encode):
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # full magenta and yellow: red
    red, green, blue = decoded(encode(picture, "JPEG", quality=95))[8][8]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    # Stored: 0 1 2 in a row. 3: upside down. 6: to be turned clockwise, so its left end is on top.
    [(1, [[0, 1, 2]]), (3, [[2, 1, 0]]), (6, [[0], [1], [2]]), (8, [[2], [1], [0]])],
)
def test_pictures_stand_upright(encode, kind, orientation, expected):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    blocks = np.kron(np.array([[0, 100, 200]], dtype=np.uint8), np.ones((16, 16), np.uint8))
    picture = np.asarray(upright(opened(encode(blocks, kind, exif=exif)), channels=1))[8::16, 8::16]
    assert (np.abs(picture.astype(int) - 100 * np.array(expected)) < 5).all()


def test_the_first_of_several_frames_is_taken(encode):
    frames = [Image.new("L", (2, 1), value) for value in (10, 200)]
    encoded = encode(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert decoded(encoded, 1) == [[10, 10]]


def test_half_of_the_pictures_are_mirrored(load, encode):
    encoded = encode(np.array([[1, 2], [3, 4]], dtype=np.uint8))
    loaded = [
        load(encoded, channels=1, flip=True, generator=np.random.default_rng(seed)).tolist()
        for seed in range(100)
    ]
    mirrored = loaded.count([[[2, 1], [4, 3]]])
    assert 30 < mirrored < 70
    assert loaded.count([[[1, 2], [3, 4]]]) == 100 - mirrored


def test_nothing_is_mirrored_unasked(load, encode):
    encoded = encode(np.array([[1, 2], [3, 4]], dtype=np.uint8))
    for options in (
        {"flip": True, "generator": None},
        *({"flip": False, "generator": np.random.default_rng(seed)} for seed in range(10)),
    ):
        assert load(encoded, channels=1, **options).tolist() == [[[1, 2], [3, 4]]]


def test_a_rule_is_chosen_by_its_name(load, encode):
    encoded = encode(np.array([[0] * 4, [200] * 4] * 2, dtype=np.uint8))
    assert load(encoded, channels=1, crop="native").tolist() == [[[200, 200], [0, 0]]]
    (resized,) = load(encoded, channels=1, crop="resize")
    assert (np.abs(resized.astype(int) - 100) < 60).all()


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "garbled"])
def test_what_cannot_be_decoded_is_named(load, encode, damage):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encode(noise)
    encoded = {
        "empty": b"",
        "text": b"no picture",
        "cut": whole[:5000],
        "garbled": whole[:200] + bytes(100) + whole[300:],
    }[damage]
    with pytest.raises(
        DataError, match=r"^cannot decode image 'odd one' in .*/odd one\.png: ."
    ) as e:
        load(encoded)
    assert "\n" not in str(e.value)


def test_a_bomb_is_named(load, encode, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    with pytest.raises(DataError, match=r"cannot decode image 'odd one' .* bomb"):
        load(encode(np.zeros((8, 8), dtype=np.uint8)))


@pytest.mark.parametrize(
    "pixels",
    [np.array([[0.5]], np.float32), np.array([[70_000]], np.int32), np.array([[-1]], np.int32)],
)
def test_pixels_without_a_range_are_refused(load, encode, pixels):
    with pytest.raises(DataError, match="32 bits have no fixed range"):
        load(encode(pixels, "TIFF"))


def test_a_whole_file_is_left_as_it_is(encode):
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    encoded = encode(noise, "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(encoded)))
    assert np.array_equal(np.asarray(upright(opened(encoded), channels=3)), expected)
