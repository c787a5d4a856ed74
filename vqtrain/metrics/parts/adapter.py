"""A metric of torchmetrics as one of ours."""

import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.metrics.base import UNROUNDED, SampleMetric, check_pair
from vqtrain.ops.pixels import to_images

if TYPE_CHECKING:
    from torchmetrics import Metric

# Those that need weights or sets of features are kinds of ours, by these words.
OURS = {
    "FrechetInceptionDistance": "fid",
    "LearnedPerceptualImagePatchSimilarity": "lpips",
    "DeepImageStructureAndTextureSimilarity": "dists",
}
# Of the samples of its packages.
AXES = {"torchmetrics.image": 2, "torchmetrics.audio": 1}


@final
class TorchMetric(SampleMetric):
    """A class of torchmetrics, or one that inherits from it, in float64, one sample at a time.

    It gets values in 0..255, and ``data_range=255`` if it asks for a range; one of sounds gets
    values in [-1, 1]. Its own reduction over ranks is off: the values of all samples are gathered
    and summed once, as for every metric.

    Args:
        kind: Its class.
        arguments: Of its constructor.

    Raises:
        ConfigError: If it does not compare pairs of samples, or cannot be built.
    """

    package = "torchmetrics"

    def __init__(self, kind: "type[Metric]", arguments: Mapping[str, object]) -> None:
        word, self.title = kind.__name__, re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__)
        self.name = self.title.lower().replace(" ", "_")
        if word in OURS:
            raise ConfigError(f"write {OURS[word]} instead of {word}: it finds its weights")
        parameters = inspect.signature(kind.update).parameters
        if list(parameters)[1:] != ["preds", "target"] or kind.higher_is_better is None:
            raise ConfigError(f"{word} of torchmetrics does not rate pairs of samples")
        self.higher_is_better = kind.higher_is_better
        self.axes = AXES.get(".".join(kind.__module__.split(".")[:2]))
        self.takes_levels = self.axes != 1
        if not self.takes_levels:
            self.rounding = UNROUNDED
        options = {**arguments}
        if "data_range" in inspect.signature(kind).parameters:
            options.setdefault("data_range", 255.0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # on memory, of many samples
                self.metric = kind(**options, sync_on_compute=False).set_dtype(torch.float64)
        except (TypeError, ValueError, ImportError) as error:
            raise ConfigError(f"cannot build {word} of torchmetrics: {error}") from error
        shown = ", ".join(f"{name}={value}" for name, value in options.items())
        self.definition = f"{word}({shown})"

    def to(self, device: torch.device) -> None:
        """Move its state."""
        self.metric.to(device)

    @torch.no_grad()
    def __call__(
        self, reconstruction: Shaped[Tensor, "b c *size"], original: Shaped[Tensor, "b c *size"]
    ) -> Float64[Tensor, " b"]:
        """Return the value of each sample; see ``SampleMetric``."""
        check_pair(self, reconstruction, original)
        return torch.stack([*map(self._value, reconstruction.double(), original.double())])

    def _value(self, reconstruction: Tensor, original: Tensor) -> Tensor:
        self.metric.reset()
        self.metric.update(reconstruction[None], original[None])
        return self.metric.compute().double().reshape(())


def refusal(metric: TorchMetric, channels: int, size: Sequence[int]) -> str | None:
    """Say why a metric of torchmetrics fails on samples of a shape; None if it has a value.

    It declares neither channels nor sizes, so it is tried.
    """
    generator = torch.Generator().manual_seed(0)
    shape = 2, 1, channels, *size
    original, other = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if not metric.takes_levels:
        other, original = to_images(other), to_images(original)
    try:
        metric(other, original)
    except Exception as error:  # whatever its class raises
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"{metric.name} does not take samples of {list(shape[2:])}: {reason}"
    return None
