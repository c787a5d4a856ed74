"""One pass over images: how near a tokenizer and its baselines come to them."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from vqtrain import distributed
from vqtrain.codebooks.base import Codebook
from vqtrain.data.decoding.base import Transform
from vqtrain.data.faults import Fault
from vqtrain.data.loading.batches import ValidationBatches
from vqtrain.data.loading.loaders import Loader
from vqtrain.data.sources.index import SampleIndex
from vqtrain.errors import DataError
from vqtrain.evaluation.baselines import Baseline
from vqtrain.evaluation.codes import CodeStatistics, distances_of, entropies
from vqtrain.evaluation.comparison import OWN, Clock, Comparison, Result
from vqtrain.evaluation.reference import Reference
from vqtrain.metrics.base import Metric
from vqtrain.metrics.parts.codebook_usage import IdCounts
from vqtrain.ops.pixels import to_pixels
from vqtrain.ops.precision import widened, without_autocast
from vqtrain.shapes import Mask, Pixels
from vqtrain.tokenizer.model import Tokenizer

# From ids and the positions of their images in the index to the ids that are decoded.
Change = Callable[[Int64[Tensor, "b k *tokens"], Sequence[int]], Int64[Tensor, "b k *tokens"]]

# The histogram of a larger codebook is left out.
LARGEST_LISTED = 2**16


@final
@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one pass over all images has measured, on all ranks.

    Attributes:
        image_ids: Images that could be read, as positions in the index; values are in their order.
        tokenizer: Of its reconstructions.
        baselines: Of those of each baseline, by word.
        codebook: How its ids are used, as plain data; None if it has none.
        faults: Images that could not be read.
        seconds: What each part took on the first rank.
        codes: What single ids do; None if it has none, or others were decoded.
    """

    image_ids: Sequence[int]
    tokenizer: Result
    baselines: Mapping[str, Result]
    codebook: Mapping[str, object] | None
    faults: Sequence[Fault]
    seconds: Mapping[str, float]
    codes: CodeStatistics | None = None


@torch.inference_mode()
def measure(
    tokenizer: Tokenizer,
    index: SampleIndex,
    *,
    transform: Transform,
    num_tokens: int | None,
    batch_size: int,
    num_workers: int,
    metrics: Sequence[Metric],
    references: Mapping[str, Reference],
    baselines: Mapping[str, Baseline],
    bits_per_pixel: float,
    autocast: Callable[[], AbstractContextManager[None]],
    progress: Callable[[int, int], None],
    change: Change | None = None,
) -> Measured:
    """Reconstruct every image once over all ranks, and compare; collective.

    Values do not depend on the number of ranks; FID does in its last bits.

    Args:
        tokenizer: On its device, in eval mode.
        index: The images.
        transform: How they become what the tokenizer takes.
        num_tokens: Decode so many tokens of a sequence alone, from the first on; None for all.
        batch_size: Images at once on each rank.
        num_workers: Processes of each rank that load images.
        metrics: With their weights, on the device of ``measuring_device``.
        references: By name of a set metric, where the moments of the originals are kept.
        baselines: By word, what else is compared with the same images.
        bits_per_pixel: The rate of the baselines.
        autocast: Returns the context of a forward pass.
        progress: Called with the number of images that are done on all ranks, and of all.
        change: Makes other ids, which are decoded and counted in place of the images' own.

    Raises:
        DataError: If no image can be read.
        VqtrainError: If latents are not finite.
    """
    clock, device = Clock(tokenizer.device), measuring_device(tokenizer.device)
    rank, world_size = distributed.rank(), distributed.world_size()
    kept = {name: each.load(device) for name, each in references.items()} if rank == 0 else {}
    known = {name: moments for name, moments in kept.items() if moments is not None}
    comparison = Comparison(metrics, known=known, clock=clock, device=device)
    factor = tokenizer.downsampling
    codebook = tokenizer.codebook
    used = IdCounts(num_codebooks=codebook.num_codebooks, size=codebook.size)
    codes = CodeStatistics(codebook, device) if codebook.num_codebooks and not change else None
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
        first = (number * world_size + rank) * batch_size
        with clock.part("tokenizer"):
            batch = loaded.to(tokenizer.device, non_blocking=True)
            images = tokenizer.to_images(batch.samples, widened(tokenizer.dtype))
            with autocast():
                passed = forward(tokenizer, images, num_tokens, change, first)
            used.add(passed.token_ids[batch.mask].to(device))
        original, mask = to_pixels(images.to(device)), batch.mask.to(device)
        if codes is not None:
            with clock.part("codes"):
                add_codes(codes, codebook, passed, original, mask, first)
        others = {}
        for word, baseline in baselines.items():
            with clock.part(word):
                others[word] = apply_baseline(baseline, original, mask, bits_per_pixel, factor)
        comparison.add(images.to(device), passed.reconstruction.to(device), mask, others)
        progress(min(len(index), (number + 1) * world_size * batch_size), len(index))
    image_ids, results = comparison.gather()
    if rank == 0:
        for name, reference in references.items():
            if name not in known:
                reference.save(comparison.originals[name])
    used.reduce()
    if codes is not None:
        codes.reduce()
    found = sorted(set(distributed.all_gather_lists(faults)), key=lambda fault: fault.key)
    if not image_ids:
        raise DataError(
            f"none of {len(index):,} images can be used; {found[0].key!r} in {found[0].shard}: "
            f"{found[0].reason}"
        )
    return Measured(
        image_ids=image_ids,
        tokenizer=results.pop(OWN),
        baselines=results,
        codebook=describe_ids(used, codes),
        codes=codes,
        faults=found,
        seconds=clock.seconds,
    )


@final
@dataclass(frozen=True, kw_only=True)
class Passed:
    """A batch that has passed a tokenizer: latents, ids, what is decoded, and what comes out."""

    latents: Float[Tensor, "b d *grid"]
    token_ids: Int64[Tensor, "b k *tokens"]
    z_q: Float[Tensor, "b c *grid"]
    reconstruction: Float[Tensor, "b channels *size"]


def forward(
    tokenizer: Tokenizer,
    images: Float[Tensor, "b c *size"],
    num_tokens: int | None,
    change: Change | None,
    first: int,
) -> Passed:
    """Encode and decode images, the first of which has a position in the index."""
    latents = tokenizer.latents(images)[..., :num_tokens]
    quantized = tokenizer.quantize(latents)
    token_ids, z_q = quantized.token_ids, quantized.z_q
    if change is not None:
        token_ids = change(token_ids, range(first, first + len(token_ids)))
        with without_autocast(token_ids):
            z_q = tokenizer.codebook.decode(token_ids)
    return Passed(
        latents=latents,
        token_ids=token_ids,
        z_q=z_q,
        reconstruction=tokenizer.decode_latents(z_q),
    )


def add_codes(
    codes: CodeStatistics,
    codebook: Codebook,
    passed: Passed,
    original: Pixels,
    mask: Mask,
    first: int,
) -> None:
    """Add what the ids of a batch do, without the images that only fill it up."""
    distances = distances_of(codebook, passed.latents, passed.z_q)
    codes.add(
        passed.token_ids.to(mask.device)[mask],
        original[mask],
        to_pixels(passed.reconstruction.to(mask.device))[mask],
        None if distances is None else distances.to(mask.device)[mask],
        torch.arange(first, first + len(mask), device=mask.device)[mask],
    )


def apply_baseline(
    baseline: Baseline, original: Pixels, mask: Mask, bits_per_pixel: float, factor: tuple[int, ...]
) -> tuple[Pixels, Float64[Tensor, " b"]]:
    """Return the reconstructions of a baseline, and the bits per pixel of each.

    Args:
        baseline: Is called with one image at a time, so that none depends on the others.
        original: The images.
        mask: False for images that only fill up the batch; they stay as they are.
        bits_per_pixel: The rate to meet.
        factor: Image pixels per grid position, along height and width.
    """
    pixels = original.cpu().clone()
    rates = torch.zeros(len(pixels), dtype=torch.float64)
    places = mask.nonzero()[:, 0].tolist()
    with ThreadPoolExecutor() as pool:  # codecs let other threads work
        found = pool.map(
            lambda place: baseline(pixels[place : place + 1], bits_per_pixel, factor), places
        )
        for place, (image, rate) in zip(places, list(found), strict=True):
            pixels[place], rates[place] = image[0], rate
    return pixels.to(original.device), rates.to(original.device)


def measuring_device(device: torch.device) -> torch.device:
    """Return where the reconstructions of a device are measured: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def describe_ids(used: IdCounts, codes: CodeStatistics | None = None) -> dict[str, object] | None:
    """Say how ids are used, and what single ones do, as plain data; None if none were counted.

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
        **(codes.describe() if codes is not None else {}),
    }


def entropy_bits(counts: Int64[Tensor, " n"]) -> float:
    """Return the entropy of ids in bits, in [0, log2 n].

    Example:
        >>> entropy_bits(torch.tensor([2, 1, 1, 0]))
        1.5
    """
    return float(entropies(counts))
