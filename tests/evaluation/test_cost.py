"""Costs against what a small network costs by hand, and timings on a clock that tests move."""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import split_kind
from vqtrain.errors import ConfigError
from vqtrain.evaluation import cost
from vqtrain.evaluation.cost import Cost, count_flops, count_parameters, measure_cost
from vqtrain.ranges import resolve_fractions

NETWORK = {"channels": 4, "block_channels": 2, "num_blocks": 1}


def tokenizer_of(kind: str, *options: str) -> Tokenizer:
    """One whose encoder halves the size once, with a codebook as composed from its options."""
    words = [f"codebook={kind}", *(f"codebook.{option}" for option in options)]
    composed = compose("train", read_command_line(words))["codebook"]
    codebook: dict[str, Any] = resolve_fractions(dict(composed), max_steps=20)
    return Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": NETWORK | {"in_channels": 3, "num_downsamplings": 1},
        },
        codebook=split_kind(codebook),
        decoder={
            "kind": "vqvae",
            "arguments": NETWORK | {"out_channels": 3, "num_upsamplings": 1},
        },
        channels=3,
    ).eval()


def measured(
    tokenizer: Tokenizer,
    *batch_sizes: int,
    image_size: int = 8,
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Cost:
    return measure_cost(
        tokenizer,
        image_size=image_size,
        device=torch.device("cpu"),
        autocast=autocast,
        batch_sizes=batch_sizes,
    )


@pytest.fixture
def _in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time real passes, but few."""
    monkeypatch.setattr(cost, "WARM_UP_S", 0.0)
    monkeypatch.setattr(cost, "ROUND_S", 0.0)


class Machine:
    """A clock that only passes over images move, by seconds that a test sets.

    Each pass takes ``seconds``, and from the time ``slows_at`` on ``slow_seconds``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds = 0.0, 0.125
        self.slows_at, self.slow_seconds = float("inf"), 0.0
        for name in ("encode", "decode"):
            monkeypatch.setattr(Tokenizer, name, self.timed(getattr(Tokenizer, name)))
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def timed(self, real: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Let time pass with every call of a pass."""

        def call(*arguments: object) -> Tensor:
            self.now += self.seconds if self.now < self.slows_at else self.slow_seconds
            return real(*arguments)

        return call


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_parameters_of_a_small_network_are_those_by_hand() -> None:
    counts = count_parameters(tokenizer_of("vq", "size=7", "dim=5"))
    assert counts == {
        # 4x4 from 3 to 2, 3x3 from 2 to 4, and a block: 3x3 from 4 to 2, 1x1 from 2 to 4.
        "encoder": (3 * 2 * 16 + 2) + (2 * 4 * 9 + 4) + (4 * 2 * 9 + 2) + (2 * 4 + 4),
        "codebook": 0,
        "codebook_entries": 7 * 5,
        # 3x3 from 4 to 4, the block, and 4x4 from 4 to 3.
        "decoder": (4 * 4 * 9 + 4) + (4 * 2 * 9 + 2) + (2 * 4 + 4) + (4 * 3 * 16 + 3),
        "projections": (4 * 5 + 5) + (5 * 4 + 4),
    }


@pytest.mark.parametrize(
    ("options", "learned", "entries"),
    [
        (["ema", "size=7", "dim=5"], 0, 7 * 5),  # without its moving averages
        (["simvq", "size=7", "dim=5"], 5 * 5 + 5, 7 * 5),
        (["gumbel", "size=7", "dim=5"], 5 * 7 + 7, 7 * 5),
        (["residual", "size=7", "inner.dim=5", "num_codebooks=4"], 0, 4 * 7 * 5),
        (["residual", "size=7", "inner.dim=5", "num_codebooks=4", "shared=true"], 0, 7 * 5),
        (["multiscale", "size=7", "inner.dim=5", "num_convolutions=2"], 2 * (5 * 5 * 9 + 5), 7 * 5),
        (["fsq", "size=16"], 0, 0),
        (["lfq", "size=16"], 0, 0),
        (["kl"], 0, 0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_entries_of_codebooks_count_apart(options: list[str], learned: int, entries: int) -> None:
    counts = count_parameters(tokenizer_of(*options))
    assert (counts["codebook"], counts["codebook_entries"]) == (learned, entries)


def test_flops_of_a_small_network_are_those_by_hand() -> None:
    encode, decode = count_flops(tokenizer_of("vq", "size=7", "dim=5"), (8, 8))
    # A multiply-add is 2, and there are 4 x 4 positions: those of every convolution's output, but
    # of the transposed one's input.
    block = 4 * 2 * 9 + 2 * 4
    assert encode == 2 * 16 * (3 * 2 * 16 + 2 * 4 * 9 + block + 4 * 5 + 7 * 5)  # 7 codes are tried
    assert decode == 2 * 16 * (5 * 4 + 4 * 4 * 9 + block + 4 * 3 * 16)


def test_flops_are_of_one_image_and_grow_with_its_area() -> None:
    small, large = (count_flops(tokenizer_of("fsq"), (size, size)) for size in (8, 16))
    assert large == tuple(4 * flops for flops in small)


@pytest.mark.parametrize("kind", ["ema", "fsq", "kl", "residual"])
@pytest.mark.usefixtures("_in_short")
def test_every_batch_size_is_timed_in_both_directions(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    found = measured(tokenizer, 1, 3)
    assert [(each.operation, each.batch_size) for each in found.timings] == [
        ("encode", 1),
        ("decode", 1),
        ("encode", 3),
        ("decode", 3),
    ]
    assert all(0 < each.median_ms <= each.p95_ms for each in found.timings)
    assert found.is_steady == all(each.is_steady for each in found.timings)
    assert found.too_large == ()
    assert found.device == f"cpu, threads: {torch.get_num_threads()}"
    assert (found.encode_flops, found.decode_flops) == count_flops(tokenizer, (8, 8))
    assert found.parameters == count_parameters(tokenizer)


@pytest.mark.usefixtures("_in_short")
def test_a_cost_is_plain_numbers() -> None:
    found = asdict(measured(tokenizer_of("fsq"), 1))
    assert json.loads(json.dumps(found)) == {
        **found,
        "timings": list(found["timings"]),
        "too_large": [],
    }


@pytest.mark.usefixtures("_in_short")
def test_weights_are_counted_in_bytes() -> None:
    tokenizer = tokenizer_of("kl")
    numbers = sum(count_parameters(tokenizer).values())
    assert measured(tokenizer, 1).weights_bytes == 4 * numbers
    assert measured(tokenizer.double(), 1).weights_bytes == 8 * numbers


def test_figures_are_those_of_the_clock(machine: Machine) -> None:
    encode, decode = measured(tokenizer_of("fsq"), 2).timings
    for timing in (encode, decode):
        # A round of 1 s is 8 passes of 125 ms, and 2 images in each are 16 a second.
        assert timing.calls == 2 * 8
        assert timing.median_ms == timing.p95_ms == 125
        assert timing.images_per_s == 16
        assert timing.spread == 0
        assert timing.is_steady
    # One pass makes ids, then each runs for 0.3 s to warm up, once for its memory, and two rounds.
    assert machine.now == (1 + 2 * (3 + 1 + 2 * 8)) * 0.125


@pytest.mark.parametrize(("slower", "is_steady"), [(1.0625, True), (1.25, False)])
def test_rounds_that_differ_by_a_tenth_are_not_steady(
    machine: Machine, slower: float, is_steady: bool
) -> None:
    # When both passes have had one round.
    machine.slows_at, machine.slow_seconds = (1 + 2 * (3 + 1 + 8)) * 0.125, 0.125 * slower
    found = measured(tokenizer_of("fsq"), 1)
    for timing in found.timings:
        assert timing.spread == pytest.approx(slower - 1)
        assert timing.is_steady == is_steady
        assert 125 <= timing.median_ms <= 125 * slower
        assert timing.p95_ms == pytest.approx(125 * slower)
    assert found.is_steady == is_steady


@pytest.mark.parametrize(("seconds", "calls"), [(0.5, 3), (2.0, 3), (6.0, 2), (60.0, 1)])
def test_slow_passes_are_timed_three_times_a_round_or_for_10_s(
    machine: Machine, seconds: float, calls: int
) -> None:
    machine.seconds = seconds
    for timing in measured(tokenizer_of("fsq"), 1).timings:
        assert timing.calls == 2 * calls
        assert timing.median_ms == 1e3 * seconds


@pytest.mark.usefixtures("_in_short")
def test_memory_is_what_a_pass_holds_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(_: Tokenizer, token_ids: Tensor) -> Tensor:
        first = torch.empty(1000 * len(token_ids))
        made = torch.empty(2000 * len(token_ids))
        del first
        assert torch.empty(500 * len(token_ids)).is_floating_point()  # smaller than what is gone
        return made

    monkeypatch.setattr(Tokenizer, "decode", decode)
    found = measured(tokenizer_of("fsq"), 1, 4)
    _, one, _, four = (timing.memory_bytes for timing in found.timings)
    assert (one, four) == (3000 * 4, 4 * 3000 * 4)


@pytest.mark.usefixtures("_in_short")
def test_nothing_is_said_on_the_way(capfd: pytest.CaptureFixture[str]) -> None:
    measured(tokenizer_of("fsq"), 1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("_in_short")
def test_a_batch_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Tokenizer.encode

    def scarce(self: Tokenizer, images: Tensor) -> Tensor:
        if len(images) > 2:
            raise torch.OutOfMemoryError
        return encode(self, images)

    monkeypatch.setattr(Tokenizer, "encode", scarce)
    found = measured(tokenizer_of("fsq"), 1, 4, 2)
    assert found.too_large == (4,)
    assert [timing.batch_size for timing in found.timings] == [1, 1, 2, 2]


@pytest.mark.usefixtures("_in_short")
def test_passes_run_in_the_precision_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    encode, states = Tokenizer.encode, set()

    def watched(self: Tokenizer, images: Tensor) -> Tensor:
        states.add(torch.is_autocast_enabled("cpu"))
        return encode(self, images)

    monkeypatch.setattr(Tokenizer, "encode", watched)
    measured(tokenizer_of("fsq"), 1, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    assert states == {True}


@pytest.mark.parametrize("batch_sizes", [(), (4, 0)])
def test_impossible_batch_sizes_are_refused(batch_sizes: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        measured(tokenizer_of("fsq"), *batch_sizes)


def test_a_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not divide into tokens of 2 x 2"):
        measured(tokenizer_of("fsq"), 1, image_size=9)
