"""What every metric must do. A new yaml under configs/metric joins by itself."""

from collections.abc import Callable
from pathlib import Path
from typing import final

import pytest
import torch
from torch import Tensor

from vqtrain.app.parts.choices import metric_entries
from vqtrain.build import kinds
from vqtrain.errors import ConfigError
from vqtrain.metrics.base import Metric, SampleMetric, SetMetric, check_pair
from vqtrain.metrics.contract import check
from vqtrain.metrics.parts.build import build_metric
from vqtrain.ops.pixels import to_images

TORCHMETRICS = ("torchmetrics.image:VisualInformationFidelity", "torchmetrics:MeanSquaredError")
ENTRIES = [
    *metric_entries(kinds("metric"), None),
    *({"kind": "lpips", "network": network} for network in ("vgg", "squeeze")),
    *TORCHMETRICS,
]


@final
class MeanAbsolute(SampleMetric):
    """A metric from outside the package, of samples with any number of axes."""

    name, title, unit, definition = "mean_absolute", "Mean absolute", "levels", "mean |a - b|"
    higher_is_better = False

    def __call__(self, reconstruction: Tensor, original: Tensor) -> Tensor:
        """Return the value of each sample."""
        check_pair(self, reconstruction, original)
        return (reconstruction.double() - original.double()).abs().flatten(1).mean(1)


@final
class Levels(SetMetric):
    """A set metric from outside the package: features are means and deviations of channels."""

    name, title, definition = "levels", "Levels", "Frechet distance of means and deviations"
    higher_is_better, dim = False, 6

    def features(self, samples: Tensor) -> Tensor:
        """Return features of reconstructions."""
        flat = samples.float().flatten(2)
        return torch.cat([flat.mean(2), flat.std(2)], 1)

    def features_of_pixels(self, pixels: Tensor) -> Tensor:
        """Return features of originals."""
        if pixels.dtype != torch.uint8:
            raise TypeError(f"pixels are uint8, got {pixels.dtype}")
        return self.features(to_images(pixels))


@pytest.fixture
def files(
    classifier_file: Callable[[str], Path], inception_file: Path, i3d_script_file: Path
) -> dict[str, str]:
    """Weights of every network, random ones in the published form."""
    networks = {name: str(classifier_file(name)) for name in ("vgg", "alex", "squeeze")}
    others = {"inception": str(inception_file), "i3d_styleganv": str(i3d_script_file)}
    return {**networks, **others}


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_every_metric_keeps_the_contract(
    entry: str | dict[str, object], files: dict[str, str]
) -> None:
    check(build_metric(entry), given=files)


@pytest.mark.parametrize("size", [(40,), (16, 16), (3, 8, 8)])
@pytest.mark.parametrize("metric", [build_metric("psnr"), MeanAbsolute()], ids=["ours", "other"])
def test_a_metric_of_any_number_of_axes_keeps_it_for_all(
    metric: Metric, size: tuple[int, ...]
) -> None:
    check(metric, channels=2, size=size)


def test_a_set_metric_from_outside_keeps_it() -> None:
    check(Levels())


def broken(**attributes: object) -> Metric:
    return type("Broken", (MeanAbsolute.__base__,), {**vars(MeanAbsolute), **attributes})()


def without_checks(_: SampleMetric, reconstruction: Tensor, original: Tensor) -> Tensor:
    return (reconstruction.double() - original.double()).abs().flatten(1).mean(1)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"title": ""}, "title must be declared"),
        ({"name": "Mean Absolute"}, "name must be lower case"),
        ({"higher_is_better": None}, "higher_is_better must be declared"),
        ({"higher_is_better": True}, "a perfect reconstruction must have a better value"),
        ({"min_size": 20}, "mean_absolute needs samples of at least 20, these have 16"),
        ({"__call__": without_checks}, "floats must raise a TypeError"),
        ({"__call__": without_checks, "takes_levels": False}, "uint8 must raise a TypeError"),
        (
            {"__call__": lambda self, a, b: MeanAbsolute.__call__(self, a, b).float()},
            "must give 3 values in float64",
        ),
        (
            {"__call__": lambda self, a, b: MeanAbsolute.__call__(self, a, b).mean()[None]},
            "must give 3 values in float64",
        ),
        (
            {"__call__": lambda self, a, b: MeanAbsolute.__call__(self, a, b) * len(a)},
            "must not depend on the others",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_broken_is_said(attributes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(broken(**attributes), size=(16, 16))
