"""What the ``trainer`` and ``metrics`` config groups hold."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch

from vqtrain.errors import ConfigError, require
from vqtrain.ops.precision import PRECISIONS
from vqtrain.ranges import above, at_least, check_fields, one_of, within
from vqtrain.tokenizer.parts import PARTS

ACCELERATORS = ("auto", "cpu", "gpu")
MEMORY_FORMATS = ("auto", "channels_last", "contiguous")
RECOMPUTED = ("none", "level", "block")
STRATEGIES = ("ddp", "fsdp")
# Of the first validation and the first checkpoint, where the intervals are longer.
FIRST_STEP = 100


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How long and how a run trains.

    Attributes:
        max_steps: Generator updates of the whole run, at least 1.
        max_time: Hours, minutes and seconds "HH:MM:SS" after which this call stops with a
            checkpoint, or None.
        accelerator: One of ``ACCELERATORS``; ``auto`` is ``gpu`` where torch finds one.
        devices: Processes on each machine, each with a device of its own, at least 1.
        num_nodes: Machines, at least 1.
        strategy: One of ``STRATEGIES``: whether each process has the networks whole, or a part.
        precision: One of ``PRECISIONS``.
        accumulate: Batches whose gradients make one step, at least 1.
        clip: Largest norm of the generator's gradient, or None.
        memory_format: How images and weights lie in memory, one of ``MEMORY_FORMATS``.
        checkpoint_activations: What is computed again in the backward pass, one of ``RECOMPUTED``.
        compile: Whether torch compiles networks; see ``vqtrain.training.acceleration``.
        deterministic: Whether operations without a deterministic form are refused.
        freeze: Parts of the tokenizer that stay as they are; see ``vqtrain.training.freezing``.
        ema_decay: Share of the average of the weights that one step keeps, or 0 for no average.
        ema_device: Where that average is: ``cpu``, or None for where the weights are.
        log_every: Steps between lines of training metrics; the last step is logged, too.
        validate_every: Steps between validations; see ``is_due``.
        checkpoint_every: Steps between checkpoints; see ``is_due``.
        keep_checkpoints: Checkpoints that are kept, besides the best and the last one.
        limit_val: Images that a validation sees at most, or None for all.
        profile: Whether a few steps are profiled; see ``vqtrain.training.profile``.

    Raises:
        ConfigError: If a value is out of range.
    """

    max_steps: Annotated[int, at_least(1)]
    max_time: str | None
    accelerator: Annotated[str, one_of(*ACCELERATORS)]
    devices: Annotated[int, at_least(1)]
    num_nodes: Annotated[int, at_least(1)]
    strategy: Annotated[str, one_of(*STRATEGIES)]
    precision: Annotated[str, one_of(*PRECISIONS)]
    accumulate: Annotated[int, at_least(1)]
    clip: Annotated[float, above(0)] | None
    memory_format: Annotated[str, one_of(*MEMORY_FORMATS)]
    checkpoint_activations: Annotated[str, one_of(*RECOMPUTED)]
    compile: bool
    deterministic: bool
    freeze: Sequence[Annotated[str, one_of(*PARTS)]]
    ema_decay: Annotated[float, within(0, 1, below_high=True)]
    ema_device: Annotated[str, one_of("cpu")] | None
    log_every: Annotated[int, at_least(1)]
    validate_every: Annotated[int, at_least(1)]
    checkpoint_every: Annotated[int, at_least(1)]
    keep_checkpoints: Annotated[int, at_least(1)]
    limit_val: Annotated[int, at_least(1)] | None
    profile: bool

    def __post_init__(self) -> None:
        require(
            self.precision != "bf16-true",
            "trainer.precision=bf16-true would round the steps of the optimizer away: train with "
            "bf16-mixed, and give bf16-true to evaluate, tokenize and reconstruct",
        )
        check_fields(self, "trainer")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ConfigError("trainer.accelerator is gpu, but torch finds none here: try cpu")
        require(
            not set(PARTS) <= set(self.freeze),
            f"trainer.freeze must leave a part to train, got {list(self.freeze)}",
        )
        self.check_devices()
        if self.max_time is not None and not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", self.max_time):
            raise ConfigError(f'trainer.max_time must be "HH:MM:SS" or null, got {self.max_time!r}')

    def check_devices(self) -> None:
        """Refuse more processes than there are devices for them here."""
        if self.uses_gpu:
            count, what = torch.cuda.device_count(), "GPUs that torch can use"
        else:
            count, what = os.cpu_count() or 1, "CPU cores, and no GPU is used"
        if self.devices > count:
            raise ConfigError(
                f"trainer.devices must be at most {count}, got {self.devices}: this machine has "
                f"{count} {what}"
            )

    @property
    def uses_gpu(self) -> bool:
        """Whether the run is on GPUs."""
        return self.accelerator != "cpu" and torch.cuda.is_available()

    @property
    def world_size(self) -> int:
        """Processes that train together."""
        return self.devices * self.num_nodes

    @property
    def is_sharded(self) -> bool:
        """Whether each process has only its part of the encoder and the decoder."""
        return self.strategy == "fsdp" and self.world_size > 1

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and images; autocast narrows it inside networks only."""
        return torch.float64 if self.precision == "64-true" else torch.float32

    def is_due(self, every: int, step: int) -> bool:
        """Say whether what happens every so many steps is due after a step.

        It also happens once early, so that people need not wait for it; at a fixed step, as a time
        would make ``metrics.jsonl`` differ between equal runs. Not if it is for the end alone.
        """
        is_early = step == FIRST_STEP < every < self.max_steps
        return step % every == 0 or is_early

    @property
    def max_time_s(self) -> float | None:
        """The time after which this call stops, in seconds."""
        if self.max_time is None:
            return None
        hours, minutes, seconds = (int(part) for part in self.max_time.split(":"))
        return float(3600 * hours + 60 * minutes + seconds)


@dataclass(frozen=True, kw_only=True)
class MetricsSettings:
    """What validation computes, besides the use of the codebook.

    Attributes:
        names: Entries as ``vqtrain.metrics.parts.build`` takes them.
        best: The kind or the name of the one that chooses ``best.ckpt``; None for the first.
    """

    names: Sequence[str | Mapping[str, object]]
    best: str | None
