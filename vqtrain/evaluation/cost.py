"""What a tokenizer costs: parameters, FLOPs, latency, throughput and memory, where it runs."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch.autograd.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from vqtrain.errors import require
from vqtrain.shapes import ImageSize, sample_size_of
from vqtrain.tokenizer.model import Tokenizer

WARM_UP_S = 0.3
ROUND_S = 1.0
MIN_CALLS = 3
LIMIT_S = 10.0
# Two rounds, or two runs, that differ by more do not repeat.
MAX_SPREAD = 0.10

Autocast = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one pass takes over one batch.

    Attributes:
        operation: encode, from images to ids; or decode, from ids to images. Of a continuous
            codebook to and from quantized latents.
        batch_size: Images at once.
        median_ms: Of a call, over both rounds.
        p95_ms: The 95th percentile of a call.
        images_per_s: All images divided by the time of all calls.
        calls: Number of timed calls.
        spread: How far the two rounds differ, as a share of the smaller one, in the figure of the
            three in which they differ most.
        is_steady: Whether the spread is at most 10 %.
        change: The same share against the last run with the same work on this machine; None if
            there was none.
        memory_bytes: The most that torch had allocated at once beyond the weights and the input;
            None where it keeps no count, as on MPS.
    """

    operation: str
    batch_size: int
    median_ms: float
    p95_ms: float
    images_per_s: float
    calls: int
    spread: float
    is_steady: bool
    change: float | None
    memory_bytes: int | None

    @property
    def figures(self) -> tuple[float, float, float]:
        """The three figures of speed."""
        return self.median_ms, self.p95_ms, self.images_per_s

    @property
    def is_repeated(self) -> bool:
        """Whether the last run here gave the same speed, within 10 %."""
        return self.change is not None and self.change <= MAX_SPREAD


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a tokenizer costs, in plain numbers.

    Attributes:
        device: What it ran on.
        image_size: Side of square images, or the sizes of the axes of a sample.
        parameters: Of encoder, decoder, projections and codebook; ``codebook_entries`` are the
            numbers in tables of codes, also of those that no optimizer trains, and counted apart.
        weights_bytes: Of all of them in memory.
        encode_flops: Of one image. A multiply-add counts 2. Convolutions, matrix products and
            attention are counted, and with them the search for codes; norms, activations,
            resampling and sums are left out.
        decode_flops: Of one image, counted in the same way.
        timings: By batch size and operation.
        too_large: Batch sizes that did not fit into the memory of the device.
        is_steady: Whether every timing is; if not, the machine was busy or too few calls fit into
            the time, and another run will give other values.
    """

    device: str
    image_size: ImageSize
    parameters: dict[str, int]
    weights_bytes: int
    encode_flops: int
    decode_flops: int
    timings: tuple[Timing, ...]
    too_large: tuple[int, ...]
    is_steady: bool


@dataclass(frozen=True, kw_only=True)
class _Pass:
    operation: str
    batch_size: int
    call: Callable[[], object]
    memory_bytes: int | None


@torch.no_grad()
def measure_cost(
    tokenizer: Tokenizer,
    *,
    image_size: ImageSize,
    device: torch.device,
    autocast: Autocast,
    batch_sizes: Sequence[int],
) -> Cost:
    """Measure what a tokenizer costs on a device, on images of noise.

    Every pass is timed in two rounds, and all passes have had their first round before any has its
    second, so that a disturbance of some seconds shows as a difference. A round is 1 s
    of calls and at least three, but none begins after 10 s; a call ends when the device is done.

    Args:
        tokenizer: In eval mode, on the device.
        image_size: Side of square images, or the sizes of the axes of a sample.
        device: Where the tokenizer is.
        autocast: Makes the context of a call.
        batch_sizes: Images at once, each at least 1.

    Raises:
        ConfigError: If a size is impossible.
    """
    require(
        bool(batch_sizes) and min(batch_sizes) >= 1,
        f"batch sizes must be one or more numbers of at least 1, got {list(batch_sizes)}",
    )
    encode_flops, decode_flops = count_flops(tokenizer, sample_size_of(image_size))
    passes: list[_Pass] = []
    too_large: list[int] = []
    for batch_size in batch_sizes:
        try:
            passes += _prepare(tokenizer, batch_size, image_size, device, autocast)
        except torch.OutOfMemoryError:
            too_large.append(batch_size)
    first, second = (
        [_clock(each.call, device, seconds=ROUND_S, least=MIN_CALLS) for each in passes]
        for _ in range(2)
    )
    timings = tuple(map(_timing, passes, first, second))
    tensors = [*tokenizer.parameters(), *tokenizer.buffers()]
    return Cost(
        device=_name(device),
        image_size=image_size,
        parameters=count_parameters(tokenizer),
        weights_bytes=sum(tensor.nbytes for tensor in tensors),
        encode_flops=encode_flops,
        decode_flops=decode_flops,
        timings=timings,
        too_large=tuple(too_large),
        is_steady=all(timing.is_steady for timing in timings),
    )


def count_parameters(tokenizer: Tokenizer) -> dict[str, int]:
    """Count the parameters of each part, and the numbers in tables of codes apart."""
    tables = {id(table): table.numel() for table in tokenizer.codebook.stored_tables()}
    learned = [p for p in tokenizer.codebook.parameters() if id(p) not in tables]
    projections = [*tokenizer.project_in.parameters(), *tokenizer.project_out.parameters()]
    return {
        "encoder": sum(p.numel() for p in tokenizer.encoder.parameters()),
        "codebook": sum(p.numel() for p in learned),
        "codebook_entries": sum(tables.values()),
        "decoder": sum(p.numel() for p in tokenizer.decoder.parameters()),
        "projections": sum(p.numel() for p in projections),
    }


def without_values(tokenizer: Tokenizer) -> Tokenizer:
    """Build its modules on torch's meta device: shapes, which cost no memory and no time."""
    with torch.device("meta"):
        return Tokenizer(
            encoder=tokenizer.specification["encoder"],
            codebook=tokenizer.specification["codebook"],
            decoder=tokenizer.specification["decoder"],
            channels=tokenizer.channels,
        )


@torch.no_grad()
def count_flops(tokenizer: Tokenizer, sample_size: Sequence[int]) -> tuple[int, int]:
    """Count the FLOPs of encoding and of decoding one sample; a multiply-add counts 2.

    Nothing is computed: the tensors of the count have shapes and no values. So the count is the
    same for every device, also where a kernel of its own does the search.

    Args:
        tokenizer: On any device.
        sample_size: Sizes of its axes.

    Raises:
        ConfigError: If the size does not fit the tokenizer.
    """
    shell = without_values(tokenizer).eval()
    images = torch.empty(1, shell.channels, *sample_size, device="meta")
    with FlopCounterMode(display=False) as encoding:
        quantized = shell.codebook(shell.latents(images))
    with FlopCounterMode(display=False) as decoding:
        has_ids = shell.codebook.num_codebooks > 0
        z_q = shell.codebook.decode(quantized.token_ids) if has_ids else quantized.z_q
        shell.decode_latents(z_q)
    return encoding.get_total_flops(), decoding.get_total_flops()


def _prepare(
    tokenizer: Tokenizer,
    batch_size: int,
    image_size: ImageSize,
    device: torch.device,
    autocast: Autocast,
) -> list[_Pass]:
    """Return both passes over a batch of images, warmed up, with the memory that each takes."""
    shape = (batch_size, tokenizer.channels, *sample_size_of(image_size))
    images = torch.rand(shape, device=device, dtype=tokenizer.dtype) * 2 - 1

    def encode() -> torch.Tensor:
        with autocast():
            if tokenizer.codebook.num_codebooks:
                return tokenizer.encode(images)
            return tokenizer.quantize(tokenizer.latents(images)).z_q

    codes = encode()

    def decode() -> torch.Tensor:
        with autocast():
            if tokenizer.codebook.num_codebooks:
                return tokenizer.decode(codes)
            return tokenizer.decode_latents(codes)

    for call in (encode, decode):
        _clock(call, device, seconds=WARM_UP_S, least=1)
    return [
        _Pass(
            operation=call.__name__,
            batch_size=batch_size,
            call=call,
            memory_bytes=_memory(call, device),
        )
        for call in (encode, decode)
    ]


def _memory(call: Callable[[], object], device: torch.device) -> int | None:
    """Return the most bytes that torch has allocated at once in a call beyond those before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    # Otherwise the profiler prints to every user without a GPU that there is none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(profile_memory=True) as record:
        call()
    assert record.kineto_results is not None, "the record has ended"
    events = [each for each in record.kineto_results.events() if each.name() == "[memory]"]
    events.sort(key=lambda each: each.start_ns())
    return max(accumulate((each.nbytes() for each in events), initial=0))


def _clock(
    call: Callable[[], object], device: torch.device, *, seconds: float, least: int
) -> list[float]:
    """Call for some seconds, and return those of each call."""
    times: list[float] = []
    began = time.perf_counter()
    while (
        not times
        or (elapsed := time.perf_counter() - began) < seconds
        or (len(times) < least and elapsed < LIMIT_S)
    ):
        start = time.perf_counter()
        call()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        times.append(time.perf_counter() - start)
    return times


def _timing(each: _Pass, first: Sequence[float], second: Sequence[float]) -> Timing:
    median, p95, rate = _figures([*first, *second], each.batch_size)
    spread = difference(_figures(first, each.batch_size), _figures(second, each.batch_size))
    return Timing(
        operation=each.operation,
        batch_size=each.batch_size,
        median_ms=1e3 * median,
        p95_ms=1e3 * p95,
        images_per_s=rate,
        calls=len(first) + len(second),
        spread=spread,
        is_steady=spread <= MAX_SPREAD,
        change=None,
        memory_bytes=each.memory_bytes,
    )


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how far two figures differ, as a share of the smaller one, for those that differ most.

    Example:
        >>> difference([2.0, 8.0], [2.5, 8.0])
        0.25
    """
    return max(max(pair) / min(pair) - 1 for pair in zip(first, second, strict=True))


def _figures(times: Sequence[float], batch_size: int) -> tuple[float, float, float]:
    """Return median and 95th percentile in s, and images per s."""
    median, p95 = (float(value) for value in np.percentile(times, [50, 95]))
    return median, p95, batch_size * len(times) / sum(times)


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu, threads: {torch.get_num_threads()}" if device.type == "cpu" else "mps"
