"""The file that an export brings along, against ``Tokenizer.preprocess``, bit for bit."""

import io
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtrain import Tokenizer
from vqtrain.errors import BadSampleError
from vqtrain.formats.parts.preprocess import write_preprocess


def both(
    folder: Path, channels: int, pixel_range: tuple[float, float] | None
) -> Callable[[object], tuple[int, ...]]:
    """Return what compares the written function with ours on a picture."""
    network = {"channels": 8, "block_channels": 4, "num_blocks": 1}
    down, up = {"in_channels": channels}, {"out_channels": channels}
    tokenizer = Tokenizer(
        encoder={"kind": "vqvae", "arguments": {**network, **down, "num_downsamplings": 2}},
        codebook={"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
        decoder={"kind": "vqvae", "arguments": {**network, **up, "num_upsamplings": 2}},
        channels=channels,
        pixel_range=pixel_range,
    )
    write_preprocess(tokenizer, folder)
    preprocess = runpy.run_path(str(folder / "preprocess.py"))["preprocess"]
    for wrong, message in (
        (noise(8, 3, channels), "8 x 3 px hold no token of 4 x 4 px"),
        (noise(8, 8, 7), f"is no picture of {channels} channels"),
        (noise(8, 8, channels) > 3, f"is no picture of {channels} channels"),
    ):
        with pytest.raises(ValueError, match=message):
            preprocess(wrong)
        with pytest.raises(BadSampleError):
            tokenizer.preprocess(wrong)

    def compare(picture: object) -> tuple[int, ...]:
        expected, found = tokenizer.preprocess(picture).numpy(), preprocess(picture)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)
        return found.shape

    return compare


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, *channels), np.uint8)


def reopened(picture: Image.Image, **options: object) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return Image.open(file)


def pictures() -> dict[str, object]:
    """Pictures of all kinds and sizes."""
    color, deep = Image.fromarray(noise(21, 30, 3)), noise(21, 30).astype(np.uint16) * 251 + 7
    turned = Image.Exif()
    turned[0x0112] = 6
    modes = ("1", "L", "P", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBX", "I", "RGBa")
    return {
        "whole": Image.fromarray(noise(16, 24, 3)),
        "odd": Image.fromarray(noise(333, 511, 3)),
        "alpha": Image.fromarray(noise(21, 30, 4), "RGBA"),
        "palette": reopened(color.quantize(8), transparency=3),
        "turned": reopened(color, exif=turned),
        "deep": Image.fromarray(deep),
        "deep and transparent": reopened(Image.fromarray(deep), transparency=int(deep[9, 9])),
        "premultiplied": Image.fromarray(noise(21, 30, 2), "LA").convert("La"),
        "lab": Image.frombytes("LAB", (30, 21), noise(21, 30, 3).tobytes()),
        "gray array": noise(21, 30),
        "deep array": deep[:, ::-1].astype(">u2"),
        **{mode: color.convert(mode) for mode in modes},
    }


@pytest.mark.parametrize("value_range", [None, (-10.0, 200.0)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated:DeprecationWarning")
def test_pictures_of_all_kinds_become_the_same_images(
    channels: int, value_range: tuple[float, float] | None, tmp_path: Path
) -> None:
    compare = both(tmp_path, channels, value_range)
    for name, picture in pictures().items():
        size = {"whole": (16, 24), "odd": (332, 508), "turned": (28, 20)}.get(name, (20, 28))
        assert compare(picture) == (1, channels, *size), name
    compare(noise(21, 30, channels))


def test_arrays_of_other_channels_need_no_pillow(tmp_path: Path) -> None:
    compare = both(tmp_path, 5, (0.0, 1000.0))
    assert compare(noise(21, 30, 5).astype(np.int16) * 9) == (1, 5, 20, 28)
    assert "PIL" not in (tmp_path / "preprocess.py").read_text().split('"""')[2]
