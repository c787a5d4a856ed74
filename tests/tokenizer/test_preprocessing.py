"""Clips and sounds in memory become samples; images are in ``test_model.py``."""

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain.errors import BadSampleError, ConfigError
from vqtrain.tokenizer.preprocessing import fitting, to_pixels

SOUND_RANGE = (-1.0, 1.0)


def take(*shape: object) -> None:
    """Take every size."""


def take_causal(first: int, *others: int) -> None:
    """Take 1 + 4k positions in time, and whole tokens of 8 px."""
    if first % 4 != 1 or any(n % 8 for n in others):
        raise ConfigError(f"{first} is not 1 + 4k")


def test_a_clip_becomes_pixels_with_the_channels_first() -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 18, 21, 3), dtype=np.uint8)
    for given in (array, np.asfortranarray(array), array.astype(np.uint16) * 257):
        pixels = to_pixels(given, axes=3, channels=3, value_range=None)
        assert np.array_equal(pixels, array.transpose(3, 0, 1, 2))
    gray = to_pixels(array[..., :1], axes=3, channels=3, value_range=None)
    assert np.array_equal(gray[2], array[..., 0])


@pytest.mark.parametrize(
    ("frames", "kept"), [(1, 1), (4, 1), (5, 5), (8, 5), (9, 9)], ids=lambda n: f"{n}"
)
def test_a_clip_keeps_its_first_frames_and_the_middle_of_each(frames: int, kept: int) -> None:
    clip = torch.arange(frames * 18 * 21).view(1, frames, 18, 21)
    # 18 - 16 = 2 rows too many, one above; 21 - 16 = 5 columns too many, two at the left.
    expected = clip[:, :kept, 1:17, 2:18]
    assert torch.equal(fitting(clip, (4, 8, 8), take_causal), expected)


def test_a_sound_keeps_whole_tokens_or_all_that_is_taken() -> None:
    def take_whole(length: int) -> None:
        if length % 320:
            raise ConfigError("no multiple of 320")

    sound = torch.arange(1000)[None]
    assert torch.equal(fitting(sound, (320,), take_whole), sound[:, :960])
    assert torch.equal(fitting(sound, (320,), take), sound)
    with pytest.raises(BadSampleError, match=r"^no multiple of 320$"):
        fitting(sound[:, :300], (320,), take_whole)


def test_a_sound_of_16_bits_or_floats_becomes_values_in_its_range() -> None:
    pcm = np.array([-32768, -16384, 0, 32767], dtype=np.int16)
    found = to_pixels(pcm, axes=1, channels=1, value_range=SOUND_RANGE)
    np.testing.assert_allclose(found, pcm[None] / 32768, atol=1e-7)
    stereo = np.array([[0.5, -0.25, 1.5], [0.25, -0.25, 1.0]])
    mono = to_pixels(stereo, axes=1, channels=1, value_range=SOUND_RANGE)
    assert mono.tolist() == [[0.375, -0.25, 1.0]]  # louder values are clipped
    twice = to_pixels(stereo[0], axes=1, channels=2, value_range=SOUND_RANGE)
    assert twice.tolist() == [[0.5, -0.25, 1.0]] * 2
    # A tokenizer whose samples have 8 bits.
    levels = to_pixels(stereo[:1], axes=1, channels=1, value_range=None)
    assert levels.tolist() == [[191, 96, 255]]


@pytest.mark.parametrize(
    ("axes", "sample", "message"),
    [
        (3, np.zeros((16, 16, 3), np.uint8), r"[16, 16, 3] is not a clip: [t, h, w, c] is"),
        (3, np.zeros((2, 8, 8, 4), np.uint8), "[2, 8, 8, 4] does not fit 3 channels"),
        (3, np.zeros((2, 8, 8, 3), np.float32), "an array of uint8, got float32"),
        (3, Image.new("RGB", (8, 8)), "takes a numpy array [t, h, w, c], got Image"),
        (1, np.zeros((100, 2), np.float32), "[100, 2] is not a sound: [t] or [c, t] is"),
        (1, np.zeros(0, np.float32), "[0] is not a sound"),
        (1, np.zeros(9, np.int32), "int32 is not a sound: int16 or floats in [-1, 1] are"),
        (1, np.full(9, 300.0), "a sound of floats must have values in [-1, 1]"),
        (1, np.full(9, np.nan), "a sound of floats must have values in [-1, 1]"),
        (1, torch.zeros(9), "takes a numpy array [t] or [c, t], got Tensor"),
    ],
)
def test_what_is_no_clip_or_sound_is_one_line(axes: int, sample: object, message: str) -> None:
    value_range = None if axes == 3 else SOUND_RANGE
    with pytest.raises(BadSampleError) as caught:
        to_pixels(sample, axes=axes, channels=3, value_range=value_range)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
