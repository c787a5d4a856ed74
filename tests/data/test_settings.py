"""Impossible settings are one line that names the key, the value and what would do."""

import runpy

import pytest

from vqtrain.data.settings import image
from vqtrain.data.settings.image import ImageData
from vqtrain.errors import ConfigError

GOOD = {
    "train": "demo",
    "val": "auto",
    "image_size": 64,
    "channels": 3,
    "crop": "native",
    "flip": True,
    "batch_size": 8,
    "num_workers": 0,
    "sampling": "permuted",
    "range": None,
    "background": "white",
    "max_bad_fraction": 0.01,
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"train": ["a.tar", "b"]},
        {"channels": 1},
        {"channels": 5, "range": [-1000, 3000]},
        {"train": [{"images": "a.tar", "weight": 2}, "b"]},
        {"background": "#102030", "sampling": "resampled", "max_bad_fraction": 0.0},
        {"crop": "resize", "flip": False},
        {"num_workers": 16},
        {"image_size": 1},
    ],
)
def test_possible_values_are_taken(change):
    settings = ImageData(**(GOOD | change))
    assert {name: getattr(settings, name) for name in GOOD} == GOOD | change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_size": 0},
            r"image_size must be at least 1 and at most 8192 or a list, each",
        ),
        (
            {"image_size": 10**6},
            r"data\.image_size must be at least 1 and at most 8192 or a list, .* got 1000000",
        ),
        (
            {"image_size": [64]},
            r"data\.image_size must be a whole number or \[height,width\], got \[64\]",
        ),
        (
            {"image_size": [64, 0]},
            r"a list, each item at least 1 and at most 8192, got \[64, 0\]",
        ),
        ({"batch_size": -2}, r"data\.batch_size must be at least 1, got -2"),
        ({"batch_size": 8.5}, r"data\.batch_size must be a whole number, got 8\.5"),
        ({"batch_size": True}, r"data\.batch_size must be a whole number, got True"),
        ({"batch_size": "eight"}, r"data\.batch_size must be a whole number, got 'eight'"),
        ({"num_workers": -1}, r"data\.num_workers must be at least 0, got -1"),
        ({"channels": 0}, r"data\.channels must be at least 1, got 0"),
        ({"channels": True}, r"data\.channels must be a whole number, got True"),
        ({"sampling": "permute"}, r"one of permuted, resampled, got 'permute'; did you mean perm"),
        ({"range": [1, 0]}, r"data\.range must be null or two numbers.*\[0,65535\]; got \[1, 0\]"),
        ({"range": [0, float("inf")]}, r"data\.range must be null or two numbers.* got \[0, inf\]"),
        ({"range": 255}, r"data\.range must be null or two numbers.* got 255"),
        ({"range": [0, True]}, r"data\.range must be null or two numbers.* got \[0, True\]"),
        ({"background": "grue"}, r'must be a color such as white or "#808080", got \'grue\''),
        ({"max_bad_fraction": 2}, r"data\.max_bad_fraction must be in \[0, 1\], got 2"),
        ({"max_bad_fraction": "1%"}, r"data\.max_bad_fraction must be a number, got '1%'"),
        ({"flip": "yes"}, r"data\.flip must be true or false, got 'yes'"),
        ({"crop": "nativ"}, r"one of native, .*, got 'nativ'; did you mean native"),
        ({"crop": "zzz"}, r"data\.crop must be one of .*, got 'zzz'$"),
        ({"crop": ["native"]}, r"data\.crop must be one of .*, got \['native'\]"),
        ({"train": ""}, r"data\.train must be demo, a folder, .* got ''"),
        ({"train": None}, r"data\.train must be demo, a folder, .* got None"),
        ({"train": ["a", 3]}, r"data\.train must be demo, a folder, .* got \['a', 3\]"),
        ({"val": []}, r"data\.val must be .*, got \[\]"),
    ],
)
def test_impossible_values_are_refused(change, message):
    # Users run without the type checks of the tests, which would be quicker to refuse.
    unchecked = runpy.run_path(image.__file__)["ImageData"]
    with pytest.raises(ConfigError, match=message):
        unchecked(**(GOOD | change))
