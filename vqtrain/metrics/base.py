"""The contract of metrics: what each declares about itself, and what it computes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.shapes import Pixels

# What samples are called by the number of their axes, and the unit of their sizes.
WORDS = {1: ("sounds", ""), 2: ("images", " px"), 3: ("clips", "")}
# What metrics of floats say of rounding.
UNROUNDED = "none: clamped to [-1, 1]"


class Metric(ABC):
    """How good a tokenizer is; a kind is a sample, a set or a text metric.

    A constructor is quick and opens no file: ``load`` reads weights, once, before a run starts.

    Attributes:
        name: The name of its values in logs and tables: the kind word, or a word of its own, and
            after it what makes values differ, as in ``lpips_vgg``.
        title: Its name for people.
        unit: Of its values; empty for none.
        higher_is_better: Whether a higher value is better.
        axes: Axes of a sample besides its channels, 2 for images; None for any number.
        channels: The numbers of channels that it takes; None for any number.
        min_size: Smallest size of a sample along every axis.
        min_frames: Smallest number of frames, of a metric of clips.
        weights: Files that it needs, keys of ``vqtrain.weights.KNOWN``.
        package: The package that computes it.
        definition: How a value comes about, for people who compare it with others.
        takes_levels: Whether it compares levels, uint8 in 0..255, as of images and clips; False for
            floats in [-1, 1], as of sounds, whose 16 bits people hear.
        sample_rate: Of sounds, in Hz; whoever uses the metric sets it. None of anything else.
        rounding: How reconstructions are rounded before.
        dtype: Of the computation.
        details: What else a value depends on, by heading.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool
    axes: int | None = None
    channels: tuple[int, ...] | None = None
    min_size: int = 1
    min_frames: int = 1
    weights: tuple[str, ...] = ()
    package: str = "vqtrain"
    definition: str
    takes_levels: bool = True
    sample_rate: int | None = None
    rounding: str = "clamped, and rounded to the nearest of 256 levels"
    dtype: str = "float64"
    details: Mapping[str, str] = MappingProxyType({})

    def load(self, files: Mapping[str, Path]) -> None:
        """Read the weights.

        Args:
            files: Where each file of ``weights`` is.

        Raises:
            WeightsError: If a file is damaged or holds the weights of another network.
        """
        del files

    def to(self, device: torch.device) -> None:
        """Move networks to the device of the samples."""
        del device


class SampleMetric(Metric):
    """Has a value for each sample; its value for a set is the mean over the samples.

    The value of a clip under a metric of images is the mean of those of its frames.

    Attributes:
        by_frame: Whether the value of a clip is the mean of those of its frames all the same, of a
            metric that takes any number of axes.
    """

    by_frame: bool = False

    @abstractmethod
    def __call__(
        self, reconstruction: Shaped[Tensor, "b c *size"], original: Shaped[Tensor, "b c *size"]
    ) -> Float64[Tensor, " b"]:
        """Return the value of each sample, which does not depend on the others in the batch.

        Args:
            reconstruction: Rounded to the 256 levels that people see and store, as uint8; without
                ``takes_levels`` floats, clamped to [-1, 1].
            original: What it is compared with.

        Raises:
            ConfigError: If it does not take samples of that shape.
            TypeError: If one of the two is not uint8, or no floats without ``takes_levels``.
            ValueError: If the shapes differ.
        """


class SetMetric(Metric):
    """Has one value for a set: the Frechet distance of the features of all samples.

    Its value depends on the number of samples, so the name carries it: ``rfid@5000``.

    Attributes:
        dim: Number of features of a sample.
    """

    dim: int

    @abstractmethod
    def features(self, samples: Float[Tensor, "b c *size"]) -> Float[Tensor, "b d"]:
        """Return the features of reconstructions, floats in [-1, 1] that are clamped.

        Raises:
            ConfigError: If it does not take samples of that shape.
            TypeError: If they are not floats.
            ValueError: If they are pixels as floats.
        """

    @abstractmethod
    def features_of_pixels(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return the features of samples as files hold them.

        Raises:
            ConfigError: If it does not take samples of that shape.
            TypeError: If they are not uint8.
        """


class TextMetric(Metric):
    """Has values for a set of images with texts, in a space of both.

    The space is that of the alignment that a run trains (see ``TextAlignment``), so a tokenizer
    alone has no value.
    """

    @abstractmethod
    def values(
        self, images: Float[Tensor, "n dim"], texts: Float[Tensor, "n dim"], words: Sequence[str]
    ) -> dict[str, float]:
        """Return values by name: one under ``name``, and others whose names begin with it.

        Args:
            images: Of length 1.
            texts: Of length 1, in the order of their images.
            words: The texts themselves.
        """


def is_by_frame(metric: Metric, size: Sequence[int]) -> bool:
    """Say whether samples of a size are clips that a metric is to be given frame by frame."""
    is_of_frames = isinstance(metric, SampleMetric) and (metric.axes == 2 or metric.by_frame)
    return is_of_frames and len(size) == 3


def mismatch(metric: Metric, channels: int, size: Sequence[int]) -> str | None:
    """Say why a metric does not take samples of a shape; None if it does."""
    what, unit = WORDS.get(metric.axes or 0, ("samples", ""))
    if metric.axes is not None and len(size) != metric.axes:
        return f"{metric.name} takes {what}, with {metric.axes} axes; these have {len(size)}"
    if metric.axes == 3 and size[0] < metric.min_frames:
        least = f"at least {metric.min_frames} frames"
        return f"{metric.name} needs clips of {least}, these have {size[0]}"
    if min(size) < metric.min_size:
        return (
            f"{metric.name} needs {what} of at least {metric.min_size}{unit}, these have "
            f"{min(size)}"
        )
    if metric.channels is not None and channels not in metric.channels:
        allowed = " or ".join(map(str, metric.channels))
        return f"{metric.name} needs {what} of {allowed} channels, these have {channels}"
    return None


def check_shape(metric: Metric, samples: Tensor) -> None:
    """Refuse samples that a metric does not take.

    Raises:
        ConfigError: If it does not take them.
    """
    found = mismatch(metric, samples.shape[1], samples.shape[2:])
    if found is not None:
        raise ConfigError(found)


def check_pair(metric: Metric, reconstruction: Tensor, original: Tensor) -> None:
    """Refuse what would give a value that means something else.

    Raises:
        ConfigError: If the metric does not take samples of that shape.
        TypeError: If one of the two is not uint8, or no floats if the metric takes those.
        ValueError: If the shapes differ.
    """
    for given in (reconstruction, original):
        if metric.takes_levels and given.dtype != torch.uint8:
            raise TypeError(f"{metric.name} takes uint8 pixels, got {given.dtype}")
        if not metric.takes_levels and not given.is_floating_point():
            raise TypeError(f"{metric.name} takes floats in [-1, 1], got {given.dtype}")
    if reconstruction.shape != original.shape:
        raise ValueError(
            f"{metric.name} compares two batches of one shape, got {list(reconstruction.shape)} "
            f"and {list(original.shape)}"
        )
    check_shape(metric, original)
