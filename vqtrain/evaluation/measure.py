"""One pass over images: how near a tokenizer and its baselines come to them."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.data.decoding.images import Transform
from vqtrain.data.faults import Fault
from vqtrain.data.loading.batches import Batch, ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.sources.index import ImageIndex
from vqtrain.errors import DataError
from vqtrain.evaluation.baselines import Baseline
from vqtrain.evaluation.protocols import Protocol
from vqtrain.evaluation.reference import Reference
from vqtrain.metrics.codebook import IdCounts
from vqtrain.metrics.fid import Moments, frechet_distance
from vqtrain.ops.pixels import to_pixels
from vqtrain.shapes import Images, Mask, Pixels
from vqtrain.tokenizer.model import Tokenizer

# Takes reconstructions and originals as uint8, gives a float64 for each image.
Measure = Callable[[Tensor, Tensor], Tensor]

# Larger codebooks are told of in few numbers.
LARGEST_LISTED = 2**16
RATE = "bits_per_pixel"
# What is not a baseline among the words of results and of moments.
OWN, ORIGINALS = "tokenizer", "originals"


@final
@dataclass(frozen=True, kw_only=True)
class Result:
    """How near reconstructions come to their images.

    Attributes:
        values: By metric, the value of each image; of baselines also their bits a pixel.
        rfid: The distance between all reconstructions and all images, or None if not asked for.
    """

    values: Mapping[str, Sequence[float]]
    rfid: float | None

    @property
    def means(self) -> dict[str, float]:
        """The mean of every metric over the images, from a sum that is rounded once."""
        return {name: math.fsum(column) / len(column) for name, column in self.values.items()}


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one pass over all images has measured, on all ranks.

    Attributes:
        image_ids: Images that could be read, as positions in the index; values are in their order.
        tokenizer: What the tokenizer makes of them.
        baselines: Likewise, by word.
        codebook: How its ids are used, as plain data; None if it has none.
        faults: Images that could not be read.
        seconds: What each part has taken on the first rank.
    """

    image_ids: Sequence[int]
    tokenizer: Result
    baselines: Mapping[str, Result]
    codebook: Mapping[str, object] | None
    faults: Sequence[Fault]
    seconds: Mapping[str, float]


@final
class Clock:
    """Adds up what parts of the work take.

    Args:
        device: Whose work is waited for at the end of each part.

    Attributes:
        seconds: By part, in the order in which they came first.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_running = device, False
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Return a context whose time is added to a part; a part within another is of that one."""
        if self._is_running:
            yield
            return
        began, self._is_running = time.perf_counter(), True
        try:
            yield
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
        finally:
            self._is_running = False
            taken = time.perf_counter() - began
            self.seconds[name] = self.seconds.get(name, 0.0) + taken

    def waiting(self, batches: Iterable[Batch], name: str) -> Iterator[Batch]:
        """Bring batches; the time of waiting for them is added to a part."""
        iterator = iter(batches)
        while True:
            with self.part(name):
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch


@final
class Comparison:
    """Compares batches of reconstructions with their images, and sums up over all ranks.

    Args:
        measures: By name, what is measured of each image.
        protocol: Makes the features of FID; None for no FID.
        reference: Where the statistics of the originals are kept; None to keep none.
        baselines: By word, what else is measured on the same images.
        bits_per_pixel: What baselines are to take.
        factor: Px per token, along height and width.
        clock: What each part takes.
        device: Where all is measured.
    """

    def __init__(
        self,
        *,
        measures: Mapping[str, Measure],
        protocol: Protocol | None,
        reference: Reference | None,
        baselines: Mapping[str, Baseline],
        bits_per_pixel: float,
        factor: tuple[int, ...],
        clock: Clock,
        device: torch.device,
    ) -> None:
        self._measures, self._protocol, self._baselines = measures, protocol, baselines
        self._rate, self._factor = bits_per_pixel, factor
        self._clock, self._device = clock, device
        self._rows: list[Tensor] = []
        self._moments: dict[str, Moments] = {}
        self._reference = reference
        # The first rank works the distances out, so it alone needs them, and decides for all.
        is_first = distributed.rank() == 0
        self._originals = reference.load(device) if reference is not None and is_first else None
        are_known = torch.tensor(int(self._originals is not None), device=device)
        distributed.from_first_rank(are_known)
        self._are_known = bool(are_known)

    def add(
        self, images: Images, reconstruction: Images, mask: Mask, image_ids: Int64[Tensor, " b"]
    ) -> None:
        """Compare a batch.

        Args:
            images: In [-1, 1].
            reconstruction: Likewise; what overshoots is clamped.
            mask: False for images that only fill up the batch.
            image_ids: Positions of the images in the index.
        """
        original = to_pixels(images.to(self._device))
        made = reconstruction.to(self._device).float()
        mask, image_ids = mask.to(self._device), image_ids.to(self._device)
        columns = [image_ids.double(), mask.double()]
        columns += self._measure(to_pixels(made), original)
        if self._protocol is not None:
            with self._clock.part("fid"):
                self._keep(OWN, self._protocol.features(made), mask)
                if not self._are_known:
                    self._keep(ORIGINALS, self._protocol.features_of_pixels(original), mask)
        for word, baseline in self._baselines.items():
            with self._clock.part(word):
                pixels, rates = self._by_baseline(baseline, original, mask)
                columns += [*self._measure(pixels, original), rates]
                if self._protocol is not None:
                    self._keep(word, self._protocol.features_of_pixels(pixels), mask)
        self._rows.append(torch.stack(columns, 1))

    def gather(self) -> tuple[list[int], dict[str, Result]]:
        """Return the images that count, and results by word, ``OWN`` first; collective.

        Distances of FID are NaN on every rank but the first, as each takes seconds.
        """
        rows = distributed.all_gather(torch.cat(self._rows)).cpu()
        rows = rows[rows[:, 1] != 0]
        columns = iter(rows[rows[:, 0].argsort()].T.tolist())
        image_ids = [int(value) for value in next(columns)]
        next(columns)  # the mask
        if self._protocol is not None:
            with self._clock.part("fid"):
                self._reduce()
        results = {}
        for word in (OWN, *self._baselines):
            names = [*self._measures, *([] if word == OWN else [RATE])]
            values = {name: next(columns) for name in names}
            results[word] = Result(values=values, rfid=self._distance(word))
        return image_ids, results

    def _measure(self, pixels: Pixels, original: Pixels) -> list[Float64[Tensor, " b"]]:
        columns = []
        for name, measure in self._measures.items():
            with self._clock.part(name):
                columns.append(measure(pixels, original))
        return columns

    def _keep(self, word: str, features: Float[Tensor, "b d"], mask: Mask) -> None:
        if word not in self._moments:
            self._moments[word] = Moments(dim=features.shape[1], device=self._device)
        self._moments[word].add(features, mask)

    def _by_baseline(
        self, baseline: Baseline, original: Pixels, mask: Mask
    ) -> tuple[Pixels, Float64[Tensor, " b"]]:
        pixels = original.cpu().clone()
        rates = torch.zeros(len(pixels), dtype=torch.float64)
        places = mask.nonzero()[:, 0].tolist()
        # One by one, so that no image depends on those beside it; codecs let other threads work.
        with ThreadPoolExecutor() as pool:
            made = pool.map(
                lambda place: baseline(pixels[place : place + 1], self._rate, self._factor), places
            )
            for place, (picture, rate) in zip(places, list(made), strict=True):
                pixels[place], rates[place] = picture[0], rate
        return pixels.to(self._device), rates.to(self._device)

    def _reduce(self) -> None:
        self._moments = {word: moments.reduced() for word, moments in self._moments.items()}
        if distributed.rank() != 0 or self._are_known:
            return
        self._originals = self._moments[ORIGINALS]
        if self._reference is not None:
            self._reference.save(self._originals)

    def _distance(self, word: str) -> float | None:
        if self._protocol is None:
            return None
        if self._originals is None:
            return math.nan
        with self._clock.part("fid" if word == OWN else word):
            return frechet_distance(self._moments[word], self._originals)


@torch.inference_mode()
def measure(
    tokenizer: Tokenizer,
    index: ImageIndex,
    *,
    transform: Transform,
    batch_size: int,
    num_workers: int,
    measures: Mapping[str, Measure],
    protocol: Protocol | None,
    reference: Reference | None,
    baselines: Mapping[str, Baseline],
    bits_per_pixel: float,
    autocast: Callable[[], AbstractContextManager[None]],
    progress: Callable[[int, int], None],
) -> Measured:
    """Reconstruct every image once over all ranks, and compare; collective.

    Values do not depend on the number of ranks; FID does in its last bits.

    Args:
        tokenizer: On its device, in eval mode.
        index: The images.
        transform: How they become what the tokenizer takes.
        batch_size: Images at once on each rank.
        num_workers: Processes of each rank that load images.
        measures: By name, what is measured of each image.
        protocol: Makes the features of FID; None for no FID.
        reference: Where the statistics of the originals are kept; None to keep none.
        baselines: By word, what else is measured on the same images.
        bits_per_pixel: What baselines are to take.
        autocast: Returns the context of a forward pass.
        progress: Is told about how many images are done on all ranks, of how many.

    Raises:
        DataError: If no image can be read.
        VqtrainError: If latents are not finite.
    """
    weight = tokenizer.project_in.weight
    clock, device = Clock(weight.device), measuring_device(weight.device)
    comparison = Comparison(
        measures=measures,
        protocol=protocol,
        reference=reference,
        baselines=baselines,
        bits_per_pixel=bits_per_pixel,
        factor=tokenizer.downsampling,
        clock=clock,
        device=device,
    )
    codebook = tokenizer.codebook
    used = IdCounts(num_codebooks=codebook.num_codebooks, size=codebook.size)
    rank, world_size = distributed.rank(), distributed.world_size()
    batches = ValidationBatches(
        index,
        transform=transform,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
    )
    faults: list[Fault] = []
    loader = Loader(batches, numbers=range(len(batches)), num_workers=num_workers)
    for number, loaded in enumerate(clock.waiting(loader, "reading")):
        faults += loaded.faults
        with clock.part("tokenizer"):
            batch = loaded.to(weight.device, non_blocking=True)
            images = tokenizer.to_images(batch.samples, weight.dtype)
            with autocast():
                quantized = tokenizer.quantize(tokenizer.latents(images))
                made = tokenizer.decode_latents(quantized.z_q)
            used.add(quantized.token_ids[batch.mask].to(device))
        first = (number * world_size + rank) * batch_size
        comparison.add(images, made, batch.mask, torch.arange(first, first + batch_size))
        progress(min(len(index), (number + 1) * world_size * batch_size), len(index))
    image_ids, results = comparison.gather()
    used.reduce()
    found = sorted(set(distributed.all_gather_lists(faults)), key=lambda fault: fault.key)
    if not image_ids:
        raise DataError(f"none of {len(index):,} images can be used: {found[0].reason}")
    return Measured(
        image_ids=image_ids,
        tokenizer=results.pop(OWN),
        baselines=results,
        codebook=describe_ids(used),
        faults=found,
        seconds=clock.seconds,
    )


def measuring_device(device: torch.device) -> torch.device:
    """Return where the reconstructions of a device are measured: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def describe_ids(used: IdCounts) -> dict[str, object] | None:
    """Say how ids are used, as plain data; None if none were counted.

    Entropy is in bits, as the mean over codebooks. The histogram, a list of counts for each
    codebook, is left out above ``LARGEST_LISTED`` ids.
    """
    if not used.rows:
        return None
    counts = [row.cpu() for _, row in used.rows]
    listed = [row.tolist() for row in counts] if used.size <= LARGEST_LISTED else None
    return {
        "num_codebooks": used.num_codebooks,
        "size": used.size,
        "tokens": used.tokens,
        "ids_seen": [int((row > 0).sum()) for row in counts],
        **used.metrics(),
        "entropy_bits": math.fsum(map(entropy_bits, counts)) / len(counts),
        "histogram": listed,
    }


def entropy_bits(counts: Int64[Tensor, " n"]) -> float:
    """Return the entropy of ids in bits, in [0, log2 n].

    Example:
        >>> entropy_bits(torch.tensor([2, 1, 1, 0]))
        1.5
    """
    shares = counts.double() / counts.sum().clamp(min=1)
    return torch.special.entr(shares).sum().item() / math.log(2)
