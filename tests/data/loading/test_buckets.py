"""Which image gets which size."""

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from vqtrain.data.decoding.images import ImageTransform
from vqtrain.data.loading import buckets as buckets_module
from vqtrain.data.loading.buckets import bucket_sizes, make_buckets, with_ratios
from vqtrain.data.sources.find import open_samples

TRANSFORM = ImageTransform(
    image_size=4, channels=3, crop="native", flip=False, range=None, background="white"
)


@pytest.mark.parametrize(("image_size", "unit"), [(256, 16), (512, 8), ([256, 384], 16), (64, 4)])
def test_sizes_have_about_as_many_tokens(image_size: int | list[int], unit: int) -> None:
    sizes = bucket_sizes(image_size, (unit, unit))
    area = math.prod([image_size] * 2 if isinstance(image_size, int) else image_size)
    assert len(sizes) in (9, 11)  # coarse tokens make two of the same
    for height, width in sizes:
        assert height % unit == width % unit == 0
        assert 0.9 < height * width / area < 1.1
        assert 0.47 < width / height < 2.15
    assert [w / h for h, w in sizes] == sorted(w / h for h, w in sizes)


def test_an_image_gets_the_nearest_ratio_and_rare_sizes_are_left_out() -> None:
    sizes = [(96, 48), (64, 64), (48, 96)]
    # The border between 1 and 2 is at the square root of 2; a thin panorama takes the widest.
    ratios = np.array([0.1, 0.7, 0.72, 1, np.nan, 1.41, 1.42, 9], np.float32)
    assert make_buckets(ratios, sizes, least=1).labels.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    merged = make_buckets(ratios[:6], sizes, least=2)
    assert (merged.sizes, merged.labels.tolist()) == (sizes[:2], [0, 0, 1, 1, 1, 1])
    assert make_buckets(ratios, sizes, least=100).sizes in ([(64, 64)], [(96, 48)], [(48, 96)])


def test_ratios_are_those_of_upright_images_and_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encode: Callable[..., bytes]
) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    picture = Image.new("RGB", (30, 20))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    array = io.BytesIO()
    np.save(array, np.zeros((3, 20, 30), np.uint8))
    files = {
        "a.jpg": encode(picture, "JPEG"),
        "b.jpg": encode(picture, "JPEG", exif=turned),
        "c.png": encode(picture, "PNG", exif=turned),
        "d.webp": encode(noise, "WEBP", lossless=True),
        "e.tif": encode(noise, "TIFF"),
        "f.npy": array.getvalue(),
        "g.jpg": b"no image",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(buckets_module, "HEAD_BYTES", 700)  # some headers are not in these
    index = open_samples(str(tmp_path), role="training")
    assert np.isnan(index.ratios).all()
    expected = [1.5, 2 / 3, 2 / 3, 1.5, 1.5, 1.5, math.nan]
    assert with_ratios(index, TRANSFORM).ratios == pytest.approx(expected, nan_ok=True)
    monkeypatch.setattr(buckets_module, "_ratio", lambda *_: 0.0)
    assert with_ratios(index, TRANSFORM).ratios == pytest.approx(expected, nan_ok=True)
