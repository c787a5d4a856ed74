"""How near reconstructions come to their originals by any metrics, over all ranks."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.data.loading.batches import Batch
from vqtrain.errors import DataError
from vqtrain.metrics.base import Metric, SampleMetric, SetMetric, is_by_frame
from vqtrain.metrics.parts.frames import frame_values
from vqtrain.metrics.parts.moments import Moments, frechet_distance
from vqtrain.ops.pixels import to_images, to_pixels
from vqtrain.ops.precision import at_least_float32
from vqtrain.shapes import Mask, Pixels

RATE = "bits_per_pixel"
# What is no baseline among the words of results and of moments.
OWN, ORIGINALS = "tokenizer", "originals"


@final
@dataclass(frozen=True, kw_only=True)
class Result:
    """How near reconstructions come to their originals.

    Attributes:
        values: By metric, the value of each sample; of baselines also their bits per pixel.
        distances: By metric and number of samples, as in ``rfid@5000``, the value of the set.
        frames: Of clips, by metric that is measured frame by frame, the mean at each frame.
    """

    values: Mapping[str, Sequence[float]]
    distances: Mapping[str, float]
    frames: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        """The mean over the samples, from a sum that is rounded once; NaN without samples."""
        return {name: mean_of(column) for name, column in self.values.items()}

    @property
    def metrics(self) -> dict[str, float]:
        """The value of every metric by its name."""
        means = {name: mean for name, mean in self.means.items() if name != RATE}
        return {**means, **self.distances}


def mean_of(values: Sequence[float]) -> float:
    """Return the mean, from a sum that is rounded once; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


@final
class Clock:
    """Adds up the time of parts of the work.

    Args:
        device: Whose work is waited for at the end of each part; None to wait for none.

    Attributes:
        seconds: By part, in the order in which they came first.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device, self._is_running = device, False
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Return a context whose time is added to a part; an inner part counts to the outer."""
        if self._is_running:
            yield
            return
        began, self._is_running = time.perf_counter(), True
        try:
            yield
            if self._device is not None and self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        finally:
            self._is_running = False
            taken = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + taken

    def waiting(self, batches: Iterable[Batch], name: str) -> Iterator[Batch]:
        """Yield batches; the time of waiting for them is added to a part."""
        iterator = iter(batches)
        while True:
            with self.part(name):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


@final
class Comparison:
    """Compares batches of reconstructions with their originals; ranks are reduced once, at the end.

    Args:
        metrics: With their weights, on the device.
        known: By name of a set metric, the moments of the originals, if they are known; the first
            rank decides for all.
        clock: Adds up the time of each metric.
        device: Where values are computed.

    Attributes:
        originals: After ``gather``, by name of a set metric, the moments of the originals.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        known: Mapping[str, Moments],
        clock: Clock,
        device: torch.device,
    ) -> None:
        self._of_samples = [metric for metric in metrics if isinstance(metric, SampleMetric)]
        self._of_sets = [metric for metric in metrics if isinstance(metric, SetMetric)]
        self._clock, self._device = clock, device
        self._rows: list[Tensor] = []
        self._frames: dict[str, list[Tensor]] = {}
        self._words: list[str] = []
        self._moments: dict[tuple[str, str], Moments] = {}
        self.originals = dict(known)
        self._new = {metric.name for metric in self._of_sets if self._is_new(metric.name)}

    def add(
        self,
        samples: Float[Tensor, "b c *size"],
        reconstruction: Float[Tensor, "b c *size"],
        mask: Mask,
        baselines: Mapping[str, tuple[Pixels, Float64[Tensor, " b"]]],
    ) -> None:
        """Compare a batch, of the same size as every other.

        Args:
            samples: In [-1, 1].
            reconstruction: In [-1, 1]; values outside are clamped.
            mask: False for samples that only fill up the batch.
            baselines: By word, other reconstructions and their bits per pixel.
        """
        self._words = [OWN, *baselines]
        first = (len(self._rows) * distributed.world_size() + distributed.rank()) * len(mask)
        places = torch.arange(first, first + len(mask), device=self._device)
        columns = [places.double(), mask.double()]
        # In 8 bits whatever the range of the files is, so that values can be compared.
        original, samples = to_pixels(samples), at_least_float32(samples)
        clamped = at_least_float32(reconstruction).clamp(-1, 1)
        both = to_pixels(reconstruction), clamped
        columns += self._values(OWN, both, (original, samples))
        for metric in self._of_sets:
            with self._clock.part(metric.name):
                self._keep(OWN, metric, metric.features(reconstruction.float()), mask)
                if metric.name in self._new:
                    self._keep(ORIGINALS, metric, metric.features_of_pixels(original), mask)
        for word, (pixels, rates) in baselines.items():
            with self._clock.part(word):
                both = pixels, to_images(pixels, samples.dtype)
                columns += [*self._values(word, both, (original, samples)), rates]
                for metric in self._of_sets:
                    self._keep(word, metric, metric.features_of_pixels(pixels), mask)
        self._rows.append(torch.stack(columns, 1))

    def gather(self) -> tuple[list[int], dict[str, Result]]:
        """Return the places of the samples that count, and results by word; collective.

        Raises:
            DataError: If known originals are not as many as the samples.
        """
        rows = distributed.all_gather(torch.cat(self._rows)).cpu()
        order = rows[:, 0].argsort()
        order = order[rows[order, 1] != 0]
        columns = iter(rows[order].T.tolist())
        places = [int(value) for value in next(columns)]
        next(columns)  # the mask
        moments = {key: moments.reduced() for key, moments in self._moments.items()}
        self.originals |= {name: moments[ORIGINALS, name] for name in self._new}
        results = {}
        for word in self._words:
            names = [metric.name for metric in self._of_samples] + [RATE] * (word != OWN)
            values = {name: next(columns) for name in names}
            distances = {
                f"{metric.name}@{len(places)}": self._distance(word, metric, moments)
                for metric in self._of_sets
            }
            frames = self._frame_means(word, order)
            results[word] = Result(values=values, distances=distances, frames=frames)
        return places, results

    def _values(
        self, word: str, reconstruction: tuple[Pixels, Tensor], original: tuple[Pixels, Tensor]
    ) -> list[Float64[Tensor, " b"]]:
        """Compare samples, each as pixels and as floats, by metric; keep values by frame."""
        columns, frames = [], []
        for metric in self._of_samples:
            pair = [each[0 if metric.takes_levels else 1] for each in (reconstruction, original)]
            with self._clock.part(metric.name):
                if is_by_frame(metric, pair[0].shape[2:]):
                    frames.append(frame_values(metric, *pair))
                    columns.append(torch.stack([clip.mean() for clip in frames[-1]]))
                else:
                    columns.append(metric(*pair))
        if frames:
            self._frames.setdefault(word, []).append(torch.stack(frames, 1))
        return columns

    def _frame_means(self, word: str, order: Int64[Tensor, " n"]) -> dict[str, list[float]]:
        """Return the mean at each frame of those samples of all ranks that count; collective."""
        if word not in self._frames:
            return {}
        columns = distributed.all_gather(torch.cat(self._frames[word])).cpu()[order]
        size = columns.shape[2], 1, 1
        names = [metric.name for metric in self._of_samples if is_by_frame(metric, size)]
        return {
            name: [mean_of(values) for values in own.T.tolist()]
            for name, own in zip(names, columns.unbind(1), strict=True)
        }

    def _keep(
        self, word: str, metric: SetMetric, features: Float[Tensor, "b d"], mask: Mask
    ) -> None:
        own = Moments(dim=metric.dim, device=self._device)
        self._moments.setdefault((word, metric.name), own).add(features, mask)

    def _distance(
        self, word: str, metric: SetMetric, moments: Mapping[tuple[str, str], Moments]
    ) -> float:
        """Return a distance; the first rank works it out, as it takes seconds; collective."""
        own = moments[word, metric.name]
        found = torch.zeros(2, dtype=torch.float64, device=self._device)
        if distributed.rank() == 0:
            original = self.originals[metric.name]
            with self._clock.part(metric.name if word == OWN else word):
                found[0], found[1] = frechet_distance(own, original), original.count
        distributed.from_first_rank(found)
        distance, count = found.tolist()
        if count != own.count:
            raise DataError(
                f"{metric.name} compares with the same originals every time, got {own.count} after "
                f"{count:.0f}"
            )
        return distance

    def _is_new(self, name: str) -> bool:
        flag = torch.tensor(int(name not in self.originals), device=self._device)
        distributed.from_first_rank(flag)
        return bool(flag)
