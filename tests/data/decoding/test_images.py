"""Decoding of every kind of picture that people have."""

import io
import struct
import zlib
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from vqtrain.data.decoding import images
from vqtrain.data.decoding.crops import CROPS
from vqtrain.data.decoding.images import ImageTransform, from_array, from_pillow
from vqtrain.errors import BadSampleError

ORIENTATION = 0x0112
NATIVE = ImageTransform(
    image_size=2, channels=3, crop="native", flip=False, range=None, background="white"
)


def load(encoded: bytes, generator=None, **options) -> list:
    return replace(NATIVE, **options).decode(encoded, generator).tolist()


def decoded(encoded: bytes, channels: int = 3, background: str = "white") -> list:
    picture = Image.open(io.BytesIO(encoded))
    options = {"channels": channels, "value_range": None, "background": background}
    pixels = from_pillow(picture, **options)
    return (pixels[..., 0] if channels == 1 else pixels).tolist()


def npy(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def write_png(
    size: tuple[int, int],
    bits: int,
    color_type: int,
    rows: list[bytes],
    *extra: tuple[bytes, bytes],
) -> bytes:
    """Write what no library at hand writes, with further chunks before the pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0)),
        *extra,
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def deep_png(array: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    """Encode 16 bits per channel."""
    height, width, channels = array.shape
    rows = [row.astype(">u2").tobytes() for row in array]
    return write_png((width, height), 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], rows, *extra)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    most = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, most, shape, dtype=dtype, endpoint=True)


def test_pixels_are_channels_first(encode):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    loaded = NATIVE.decode(encode(pixels), None)
    assert loaded.dtype == torch.uint8
    assert loaded.tolist() == [[[0, 3], [6, 9]], [[1, 4], [7, 10]], [[2, 5], [8, 11]]]


def test_gray_is_one_channel_or_repeated(encode):
    gray = np.array([[0, 50], [100, 255]], dtype=np.uint8)
    assert load(encode(gray), channels=1) == [gray.tolist()]
    assert load(encode(gray), channels=3) == [gray.tolist()] * 3


def test_color_becomes_luma(encode):
    # ITU-R 601: 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    color = np.array([[[200, 100, 50]]], dtype=np.uint8)
    assert decoded(encode(color), 1) == [[124]]
    assert from_array(color, channels=1, value_range=None).tolist() == [[[124]]]
    gray = from_array(color, channels=1, value_range=(0.0, 255.0))
    assert gray.item() == pytest.approx(124.2)


def test_transparency_is_laid_on_the_background(encode):
    # Half covered black: 255 * (1 - 128/255) = 127; not covered at all: white.
    rgba = np.array([[[0, 0, 0, 128], [9, 9, 9, 0], [1, 2, 3, 255]]], dtype=np.uint8)
    assert decoded(encode(rgba)) == [[[127] * 3, [255] * 3, [1, 2, 3]]]
    # 100 * 127/255 = 49.8 and 50 * 127/255 = 24.9.
    on_orange = decoded(encode(rgba), background="#643200")
    assert on_orange == [[[50, 25, 0], [100, 50, 0], [1, 2, 3]]]
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
    assert decoded(encode(picture, transparency=b"\x00\xff"), 4)[0][1] == [40, 50, 60, 255]
    assert decoded(encode(picture, "GIF")) == [[[10, 20, 30], [40, 50, 60]]]


def test_a_transparent_color_is_the_background(encode):
    picture = np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8)
    assert decoded(encode(picture, transparency=(4, 5, 6))) == [[[1, 2, 3], [255] * 3]]


@pytest.mark.parametrize(("bits", "step"), [(2, 85), (4, 17), (8, 1)])
def test_a_transparent_gray_of_few_bits_is_the_background(bits, step):
    row = bytes([0b00_01_10_11]) if bits == 2 else bytes([0x01, 0x23]) if bits == 4 else b"\0\1\2\3"
    encoded = write_png((4, 1), bits, 0, [row], (b"tRNS", b"\0\1"))
    assert decoded(encoded, 1) == [[0, 255, 2 * step, 3 * step]]
    assert decoded(encoded, 3, "#010203")[0][1:] == [[1, 2, 3], [2 * step] * 3, [3 * step] * 3]


def test_a_transparent_color_of_16_bits_is_the_background():
    # 30,000 / 257 = 116.7; 0 and 1 differ in their last bit alone.
    gray = np.array([[[0], [1]], [[30_000], [65_535]]])
    options = {"channels": 1, "background": "#640000"}  # 0.299 * 100 = 30 in gray
    encoded = deep_png(gray, (b"tRNS", struct.pack(">H", 0)))
    assert load(encoded, **options) == [[[30, 0], [117, 255]]]
    assert load(encoded, **{**options, "channels": 3})[0] == [[100, 0], [117, 255]]
    assert load(encoded, **{**options, "channels": 3})[2] == [[0, 0], [117, 255]]
    deep = load(encoded, **options, range=(0.0, 65_535.0))
    assert deep == [[[7_684, 1], [30_000, 65_535]]]  # 0.299 * 25,700 = 7,684.3
    color = deep_png(np.repeat(gray, 3, axis=2), (b"tRNS", struct.pack(">HHH", *[30_000] * 3)))
    assert load(color, background="#640000")[0] == [[0, 0], [100, 255]]


@pytest.mark.parametrize(
    ("name", "head"),
    [(b"iCCP", b"x\0\0"), (b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0")],
)
def test_large_metadata_keep_no_picture_out(name, head):
    chunk = (name, head + zlib.compress(bytes(3_000_000)))
    pixels = np.full((2, 2, 3), 257)
    assert load(deep_png(pixels, chunk)) == [[[1, 1], [1, 1]]] * 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_to_8(encode, kind):
    # v / 257, rounded: 25,828 / 257 = 100.498 and 25,829 / 257 = 100.502.
    values = np.array([[0, 257, 25_700, 25_828, 25_829, 65_535]], dtype=np.uint16)
    assert decoded(encode(values, kind), 1) == [[0, 1, 100, 100, 101, 255]]
    assert decoded(encode(values, kind), 3)[0][2] == [100, 100, 100]
    pixels = from_array(values, channels=1, value_range=None)
    assert pixels[..., 0].tolist() == [[0, 1, 100, 100, 101, 255]]


def test_one_bit_is_black_and_white(encode):
    picture = Image.new("1", (2, 1))
    picture.putpixel((1, 0), 1)
    assert decoded(encode(picture), 1) == [[0, 255]]


def test_cmyk_is_converted(encode):
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # full magenta and yellow: red
    pixels = NATIVE.decode(encode(picture, "JPEG", quality=95), None)
    assert pixels[0].min() > 240
    assert pixels[1:].max() < 15


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "JPEG2000"])
def test_other_formats_are_read(encode, kind):
    picture = Image.new("RGB", (8, 8), (200, 100, 50))
    pixels = NATIVE.decode(encode(picture, kind), None)
    assert (pixels.float() - torch.tensor([200.0, 100, 50])[:, None, None]).abs().max() < 5


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    # Stored: 0 1 2 above 3 4 5. 3: upside down. 6: to be turned clockwise, so its left end is on
    # top. 5 and 7 are mirrored at the diagonals.
    [
        (1, [[0, 1, 2], [3, 4, 5]]),
        (2, [[2, 1, 0], [5, 4, 3]]),
        (3, [[5, 4, 3], [2, 1, 0]]),
        (4, [[3, 4, 5], [0, 1, 2]]),
        (5, [[0, 3], [1, 4], [2, 5]]),
        (6, [[3, 0], [4, 1], [5, 2]]),
        (7, [[5, 2], [4, 1], [3, 0]]),
        (8, [[2, 5], [1, 4], [0, 3]]),
        (9, [[0, 1, 2], [3, 4, 5]]),
    ],
)
def test_pictures_stand_upright(encode, kind, orientation, expected):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    values = np.array([[0, 50, 100], [150, 200, 250]], dtype=np.uint8)
    encoded = encode(np.kron(values, np.ones((16, 16), np.uint8)), kind, exif=exif)
    height, width = (16 * n for n in np.shape(expected))
    expected = 50 * np.kron(expected, np.ones((16, 16)))[None]
    side = 16
    for crop, generator in (("native", None), ("native", np.random.default_rng(1))):
        square = load(encoded, generator, channels=1, crop=crop, image_size=side)
        again = None if generator is None else np.random.default_rng(1)
        left, top, *_ = CROPS[crop](width, height, (side, side), again).box
        part = expected[:, top : top + side, left : left + side]
        assert np.abs(np.array(square) - part).mean() < 5


def test_the_first_of_several_frames_is_taken(encode):
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    for kind in ("TIFF", "GIF", "PNG", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        encoded = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert load(encoded, channels=1) == [[[10, 10]] * 2]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_is_decoded_as_by_pillow(encode, mode, channels, options):
    smooth = Image.fromarray(noise(9, 8, 3)).resize((53, 47), Image.Resampling.BICUBIC)
    encoded = encode(smooth.convert(mode), "JPEG", **options)
    square = replace(NATIVE, channels=channels, image_size=47).decode(encoded, None)
    expected = Image.open(io.BytesIO(encoded)).convert("L" if channels == 1 else "RGB")
    expected = np.asarray(expected).reshape(47, 53, channels)[:, 3:50].transpose(2, 0, 1)
    # Gray is the luma of the file, which Pillow here has turned into RGB and clipped.
    assert np.abs(square.numpy().astype(int) - expected).max() <= (4 if channels == 1 else 1)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("image_size", "factor"), [(200, None), (150, 2), (75, 4), (20, 8)])
def test_a_large_jpeg_is_decoded_smaller_in_training(
    encode, monkeypatch, image_size, factor, orientation
):
    drafts = []
    draft = JpegImageFile.draft

    def record(self, mode, size):
        drafts.append(size)
        return draft(self, mode, size)

    monkeypatch.setattr(JpegImageFile, "draft", record)
    smooth = Image.fromarray(noise(3, 4, 3)).resize((500, 301), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    encoded = encode(smooth, "JPEG", quality=95, exif=exif)
    transform = replace(NATIVE, crop="resize", image_size=image_size)
    fast = transform.decode(encoded, np.random.default_rng(3))
    assert drafts == ([] if factor is None else [(500 // factor, 301 // factor)])
    monkeypatch.setattr(images, "_draft_factor", lambda _: 1)
    slow = transform.decode(encoded, np.random.default_rng(3))
    difference = (fast.float() - slow.float()).abs().mean()
    assert (difference == 0) == (factor is None)
    # Boxes in reduced pixels are off by less than one; taken for whole ones it is 20 and more.
    assert difference < 4


def test_a_part_of_a_large_jpeg_is_the_same_part_of_the_smaller_one(encode, monkeypatch):
    # Gray values are columns: 2 of them to a level.
    ramp = np.tile(np.arange(500) // 2, (400, 1)).astype(np.uint8)
    encoded = encode(ramp, "JPEG", quality=95)
    transform = replace(NATIVE, crop="random_resized", image_size=32, channels=1)
    for seed in range(5):
        fast = transform.decode(encoded, np.random.default_rng(seed)).float()
        with monkeypatch.context() as patch:
            patch.setattr(images, "_draft_factor", lambda _: 1)
            slow = transform.decode(encoded, np.random.default_rng(seed)).float()
        # Half a pixel of the smallest is 4 columns, or 2 levels.
        assert (fast - slow).abs().max() <= 5


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_half_of_the_pictures_are_mirrored(encode, kind):
    block = np.kron(np.array([[0, 255]], np.uint8), np.ones((16, 8), np.uint8))
    encoded = encode(block, kind)
    loaded = [
        load(encoded, np.random.default_rng(seed), channels=1, flip=True, image_size=16)[0][0][0]
        for seed in range(100)
    ]
    mirrored = sum(value > 200 for value in loaded)
    assert 30 < mirrored < 70
    assert sum(value < 50 for value in loaded) == 100 - mirrored


def test_nothing_is_mirrored_unasked(encode):
    encoded = encode(np.array([[1, 2], [3, 4]], dtype=np.uint8))
    assert load(encoded, None, channels=1, flip=True) == [[[1, 2], [3, 4]]]
    for seed in range(10):
        generator = np.random.default_rng(seed)
        assert load(encoded, generator, channels=1, flip=False) == [[[1, 2], [3, 4]]]


def test_a_rule_is_chosen_by_its_name(encode):
    encoded = encode(np.array([[0] * 4, [200] * 4] * 2, dtype=np.uint8))
    assert load(encoded, channels=1, crop="native") == [[[200, 200], [0, 0]]]
    (resized,) = load(encoded, channels=1, crop="resize")
    assert (np.abs(np.array(resized) - 100) < 60).all()


@pytest.mark.parametrize("crop", CROPS)
@pytest.mark.parametrize("options", [{}, {"range": (0.0, 300.0)}])
def test_random_numbers_do_not_depend_on_the_decoder(encode, crop, options):
    # A constant picture cannot differ, so what is compared is the state that is left behind.
    picture = Image.new("RGB", (90, 70), (100, 100, 100))
    states = []
    for encoded in (encode(picture), encode(picture, "JPEG"), npy(np.asarray(picture))):
        generator = np.random.default_rng(5)
        load(encoded, generator, crop=crop, image_size=16, flip=True, **options)
        states.append(generator.bit_generator.state["state"])
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_keeps_them_with_a_range(channels):
    values = noise(2, 2, channels, dtype=np.uint16)
    square = replace(NATIVE, channels=channels, range=(0.0, 65_535.0)).decode(
        deep_png(values), None
    )
    assert square.dtype == torch.float32
    assert square.permute(1, 2, 0).tolist() == values.tolist()


def test_png_of_16_bits_with_transparency_lies_on_the_background():
    # Black, a fifth covered (13,107 = 65,535 / 5): the rest is the background, 100 * 257 red.
    values = np.tile(np.array([0, 0, 0, 13_107], np.uint16), (2, 2, 1))
    options = {"range": (0.0, 65_535.0), "background": "#640000"}
    square = np.array(load(deep_png(values), **options))
    assert square[:, 0, 0] == pytest.approx([20_560, 0, 0])
    gray = np.array(load(deep_png(values[..., 2:]), channels=1, range=(0.0, 65_535.0)))
    assert gray[0, 0, 0] == pytest.approx(52_428)  # four fifths of white


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3), (4, 4, 4), (4, 4, 5), (5, 4, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_tiff_keeps_its_values_with_a_range(shape, dtype):
    values = noise(*shape).astype(dtype) - (100 if dtype != np.uint8 and dtype != np.uint16 else 0)
    is_planar = shape[0] == 5
    options = {
        "photometric": "rgb" if shape[2:] in ((3,), (4,)) and not is_planar else "minisblack"
    }
    if len(shape) == 3:
        options["planarconfig"] = "separate" if is_planar else "contig"
    if shape == (4, 4, 4):
        options["extrasamples"] = ["unspecified"]  # such as infrared
    last = values.transpose(1, 2, 0) if is_planar else values.reshape(4, 4, -1)
    transform = replace(
        NATIVE, channels=last.shape[2], range=(-100.0, 255.0), image_size=4, crop="resize"
    )
    square = transform.decode(tiff(values, **options), None)
    assert square.permute(1, 2, 0).tolist() == last.tolist()


def test_compressed_tiff_of_16_bits_needs_no_further_library(encode):
    values = noise(2, 2, dtype=np.uint16)
    encoded = encode(values, "TIFF", compression="tiff_lzw")
    assert load(encoded, channels=1, range=(0.0, 65_535.0)) == [values.tolist()]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, ">u2", np.int64, np.float16, ">f8"])
def test_npy_keeps_its_values_with_a_range(dtype):
    values = (noise(2, 2, 5) // 2).astype(dtype)
    for array in (values, values.transpose(2, 0, 1), np.asfortranarray(values)):
        square = load(npy(array), channels=5, range=(0.0, 255.0))
        assert np.array(square).transpose(1, 2, 0).tolist() == values.tolist()
    assert load(npy(values[..., 0]), channels=1, range=(0.0, 255.0)) == [values[..., 0].tolist()]


def test_npy_of_three_rows_is_not_taken_for_channels_first():
    values = noise(3, 3, 3)
    square = load(npy(values), image_size=3)
    assert np.array(square).transpose(1, 2, 0).tolist() == values.tolist()
    assert load(npy(values[..., 0]), image_size=3) == [values[..., 0].tolist()] * 3


def test_values_beyond_the_range_become_its_ends_and_do_not_spread():
    values = np.zeros((32, 32), np.float32)
    values[:16] = 1e9
    values[0, 0] = -1e30
    options = {"channels": 1, "crop": "resize", "image_size": 8, "range": (0.0, 10.0)}
    square = np.array(load(npy(values), **options))[0]
    assert square[:3, 4:] == pytest.approx(10)
    assert square[5:] == pytest.approx(0)
    assert square.min() >= 0
    assert square.max() <= 10


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_of_8_bits_keep_their_values_with_a_range(encode, kind):
    picture = Image.new("L", (16, 16), 200)
    transform = replace(NATIVE, channels=1, range=(0.0, 1000.0))
    square = transform.decode(encode(picture, kind), None)
    assert square.dtype == torch.float32
    assert square.unique().tolist() == [200]


def test_npy_of_pixels_needs_no_range():
    values = noise(2, 2, 3)
    assert load(npy(values)) == load(npy(values.astype(np.uint16) * 257))
    assert load(npy(values)) == values.transpose(2, 0, 1).tolist()


def test_any_number_of_channels_is_taken_as_it_is(encode):
    rgba = noise(2, 2, 4)
    assert load(encode(rgba), channels=4) == rgba.transpose(2, 0, 1).tolist()
    assert np.shape(load(encode(Image.new("LA", (2, 2))), channels=2)) == (2, 2, 2)
    five = noise(2, 2, 5)
    assert load(npy(five), channels=5) == five.transpose(2, 0, 1).tolist()


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("PNG", "garbled"),  # other formats have no checksums
        *product(
            ["PNG", "JPEG", "TIFF", "WEBP", "GIF", "npy", "deep TIFF"], ["cut", "first bytes"]
        ),
    ],
)
def test_damage_is_one_line(encode, kind, damage):
    pixels = noise(64, 64, 3) // 16  # or a PNG would hold it as it is, and nothing be wrong
    whole = {"npy": npy, "deep TIFF": lambda array: tiff(array.astype(np.uint16))}.get(
        kind, lambda array: encode(array, kind)
    )(pixels)
    encoded = {
        "cut": whole[: len(whole) // 2],
        "garbled": whole[:200] + bytes(100) + whole[300:],
        "first bytes": whole[:12],
    }[damage]
    value_range = (0.0, 65_535.0) if kind == "deep TIFF" else None
    for generator in (None, np.random.default_rng(0)):
        for crop in ("native", "resize"):
            with pytest.raises(BadSampleError) as caught:
                load(encoded, generator, crop=crop, range=value_range)
            assert "\n" not in str(caught.value)
            assert "/" not in str(caught.value)  # no place in somebody's source code


def test_a_jpeg_that_ends_early_is_said(encode):
    whole = encode(noise(64, 64, 3), "JPEG")
    # Also where the file has its length already, as that of a download that stopped.
    for cut in (whole[:-100], whole[:-2], whole[:-100] + bytes(100)):
        with pytest.raises(BadSampleError) as caught:
            load(cut)
        assert str(caught.value) == "cannot be decoded: Image is incomplete or truncated"


@pytest.mark.parametrize("content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_picture_is_said(content):
    with pytest.raises(BadSampleError, match=r"^no JPEG, .* or npy$" if content else "is empty"):
        load(content)


def test_a_bomb_is_refused_before_it_is_unpacked(encode, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    pixels = noise(8, 8)
    for encoded in (encode(pixels), encode(pixels, "JPEG"), encode(pixels, "TIFF")):
        with pytest.raises(BadSampleError, match="bomb"):
            load(encoded)
    with pytest.raises(BadSampleError, match="bomb"):
        load(tiff(noise(20, 20, 5), photometric="minisblack", planarconfig="contig"), channels=5)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 64 px are below twice that: no word of it
    assert load(encode(pixels))


def test_an_array_that_claims_to_be_large_is_refused_before_there_is_room_for_it():
    encoded = npy(noise(100, 100)).replace(b"(100, 100), }         ", b"(1000000000, 1000000), }")
    assert b"1000000000" in encoded
    with pytest.raises(BadSampleError, match="buffer is smaller"):
        load(encoded)


@pytest.mark.parametrize(
    "pixels",
    [np.array([[0.5]], np.float32), np.array([[70_000]], np.int32), np.array([[-1]], np.int32)],
)
def test_values_without_a_range_are_refused(encode, pixels):
    sentence = (
        r"^pixels of \w+ have no fixed range: set data.range to the values of black and white"
    )
    for encoded in (npy(pixels), encode(pixels, "TIFF")):
        with pytest.raises(BadSampleError, match=sentence):
            load(encoded, channels=1)


@pytest.mark.parametrize(
    ("array", "channels", "message"),
    [
        (np.zeros((4, 4, 5), np.uint8), 3, r"\[4, 4, 5\] does not fit data.channels=3"),
        (np.zeros((4, 4), np.uint8), 5, r"\[4, 4\] does not fit data.channels=5"),
        (np.zeros((4, 4, 4), np.uint8), 3, r"\[4, 4, 4\] does not fit data.channels=3"),
        (np.zeros(4, np.uint8), 1, r"\[4\] is not an image"),
        (np.zeros((0, 4), np.uint8), 1, r"\[0, 4\] is not an image"),
        (np.zeros((4, 4), bool), 1, "of bool is not an image"),
        (np.zeros((4, 4), np.complex64), 1, "of complex64 is not an image"),
        (np.full((4, 4), np.nan), 1, "NaN or infinite"),
        (np.full((4, 4), -np.inf), 1, "NaN or infinite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(array, channels, message):
    with pytest.raises(BadSampleError, match=message):
        load(npy(array), channels=channels, range=(0.0, 1.0))


def test_objects_are_never_unpickled():
    with pytest.raises(BadSampleError, match="OBJECT"):
        load(npy(np.array([[{}]], dtype=object), allow_pickle=True))


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 4), ("L", 2), ("CMYK", 4), ("RGBA", 5)])
def test_pictures_of_other_channels_are_refused(encode, mode, channels):
    encoded = encode(Image.new(mode, (6, 6)), "JPEG" if mode == "CMYK" else "TIFF")
    with pytest.raises(BadSampleError, match=f"does not fit data.channels={channels}"):
        load(encoded, channels=channels)


def test_metadata_that_cannot_be_read_do_no_harm(encode):
    picture = Image.new("L", (8, 8), 7)
    encoded = encode(picture, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert load(encoded, channels=1) == [[[7, 7]] * 2]


def test_a_picture_is_left_as_it_is(encode):
    picture = Image.open(io.BytesIO(encode(noise(4, 4, 4))))
    from_pillow(picture, channels=3, value_range=None, background="white")
    assert picture.mode == "RGBA"


def test_our_png_of_16_bits_is_one():
    values = noise(2, 2, 3, dtype=np.uint16)
    picture = Image.open(io.BytesIO(deep_png(values)))
    assert np.array_equal(np.asarray(picture), values >> 8)
