"""Impossible settings are one line that names the key, the value and what would do."""

import runpy

import pytest
import yaml

from vqtrain.build import configs_folder
from vqtrain.data.settings import image
from vqtrain.data.settings.image import ImageData
from vqtrain.data.settings.kinds import bind_data
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
            r"image_size must be at least 1 and at most 8192 or \[height,width\], got 0",
        ),
        (
            {"image_size": 10**6},
            r"must be at least 1 and at most 8192 or \[height,width\], got 1000000",
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
        ({"train": None}, r"^data\.train is not set: give a folder, data\.train=FOLDER$"),
        ({"val": "null"}, r"^data\.val is not set: give a folder, data\.val=FOLDER$"),
        ({"train": ["a", 3]}, r"data\.train must be demo, a folder, .* got \['a', 3\]"),
        ({"val": []}, r"data\.val must be .*, got \[\]"),
    ],
)
def test_impossible_values_are_refused(change, message):
    # Users run without the type checks of the tests, which would be quicker to refuse.
    unchecked = runpy.run_path(image.__file__)["ImageData"]
    with pytest.raises(ConfigError, match=message):
        unchecked(**(GOOD | change))


def group_of(kind):
    """Read the keys of a kind of data, without the metrics that it chooses."""
    group = yaml.safe_load((configs_folder() / f"data/{kind}.yaml").read_text())
    return {key: value for key, value in group.items() if key != "defaults"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "vidio"}, r"data\.kind: unknown kind 'vidio', did you mean 'video'\?"),
        ({"fps": 8, "stride": 2}, r"data\.fps=8\.0 takes frames by time: .* got data\.stride=2"),
        ({"frames_per_loss": 18}, r"frames_per_loss must be at most data\.frames=17, got 18"),
        ({"frames": 0}, r"data\.frames must be at least 1, got 0"),
        ({"fps": 0}, r"data\.fps must be above 0 and finite or null, got 0"),
        ({"length": 4}, r"data: unknown key 'length'|unknown .*length"),
    ],
)
def test_impossible_settings_of_clips_are_refused(change, message):
    group = group_of("video")
    with pytest.raises(ConfigError, match=message):
        bind_data(group | change)


@pytest.mark.parametrize(
    ("kind", "size", "text"),
    [
        ("image", (64, 64), "64 x 64 px"),
        ("video", (17, 64, 64), "17 frames of 64 x 64 px"),
        ("sound", (16384,), "16,384 samples at 16,000 Hz (1 s)"),
    ],
)
def test_each_kind_describes_its_samples(kind, size, text):
    settings = bind_data(group_of(kind))
    assert (settings.media.word, settings.sample_size, settings.size_text) == (kind, size, text)
    again = settings.transform.sized(size)
    assert again.sample_size == size
