"""The memory of a training step, known before the first one, and the largest batch that fits."""

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from vqtrain.data.settings.base import DataSettings
from vqtrain.ops.free_memory import free_memory
from vqtrain.ops.unallocated import TRACED_BATCH, CopyWithoutValues, MemoryTrace
from vqtrain.training.acceleration import lay_out
from vqtrain.training.module import TokenizerTraining

# Its averages of the gradient and of its square, each as large as the weights.
STATES_OF_ADAMW = 2
# What libraries take for themselves in a step, as a factor; see docs/performance.md.
MARGIN = 1.1


@final
@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """The memory that a process takes for training, in bytes.

    Attributes:
        constant: What is alive in every step: weights, their average, states of the optimizers.
        moments: What is alive besides at some moments of a step: pairs of bytes, constant ones
            and those of each sample of the batch.
    """

    constant: int
    moments: frozenset[tuple[int, int]]

    def at(self, batch_size: int) -> int:
        """Return the peak of a step whose batches have so many samples."""
        return self.constant + max(c + batch_size * s for c, s in self.moments)

    def largest_batch(self, free: int) -> int:
        """Return the number of samples in the largest batch that fits into so many bytes, or 0."""
        left = [(free - self.constant - c, s) for c, s in self.moments]
        if any(rest < 0 for rest, _ in left):
            return 0
        return min((rest // s for rest, s in left if s), default=0)


@final
@dataclass(frozen=True, kw_only=True)
class MemoryOutlook:
    """Whether a step of a run fits into the memory of its device.

    Attributes:
        needed: What a process takes, in bytes.
        free: What there is for each of them, in bytes; None where that is not known.
        batch_size: The run's.
        largest: The largest one that fits, or 0; None where that is not known.
    """

    needed: int
    free: int | None
    batch_size: int
    largest: int | None

    def __str__(self) -> str:
        """Say how much it is, and what would fit."""
        if self.free is None:
            return f"about {readable(self.needed)}"
        fits = f"batches of up to {self.largest:,} would fit"
        if not self.largest:
            fits = "not even batches of 1 would fit"
        return f"about {readable(self.needed)} of {readable(self.free)} free; {fits}"

    @property
    def remedy(self) -> str | None:
        """What to do where it does not fit."""
        if self.largest is None or self.batch_size <= self.largest:
            return None
        smaller = (
            f"data.batch_size={self.largest} with a larger trainer.accumulate, "
            if self.largest
            else ""
        )
        return (
            f"try {smaller}trainer.checkpoint_activations=block, trainer.precision=bf16-mixed, or "
            "smaller networks"
        )


def look_at_memory(
    module: TokenizerTraining, trainer: Trainer, data: DataSettings
) -> MemoryOutlook | None:
    """Compare what a step needs with what is free; None where that cannot be told.

    Args:
        module: Before its training begins.
        trainer: Of the run.
        data: The ``data`` group.
    """
    if module.settings.is_sharded:
        return None  # it would count what other processes have
    device = trainer.strategy.root_device
    try:
        memory = measure_step(module, trainer, (data.channels, *data.sample_size))
        free = free_memory(device)
    except Exception:  # whatever a stranger's class does; the run itself says what is wrong
        return None
    if free is not None and device.type == "cpu":
        # The weights are there already, and the processes of a machine share its memory.
        free = free // module.settings.devices + sum(p.nbytes for p in module.parameters())
    return MemoryOutlook(
        needed=memory.at(data.batch_size),
        free=free,
        batch_size=data.batch_size,
        largest=None if free is None else memory.largest_batch(int(free / MARGIN)),
    )


def readable(size: int) -> str:
    """Write a number of bytes for people.

    Example:
        >>> readable(2_660_000_000), readable(20_400_000), readable(22_400_000_000)
        ('2.7 GB', '20 MB', '22 GB')
    """
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.{0 if size >= 10e9 else 1}f} GB"


def measure_step(
    module: TokenizerTraining, trainer: Trainer, sample_size: Sequence[int]
) -> StepMemory:
    """Run a late step, with all terms and both networks, on tensors without values.

    Args:
        module: Before its training begins.
        trainer: Of the run.
        sample_size: Channels and axes of a sample.

    Raises:
        Exception: If a part looks at values.
    """
    settings, device = module.settings, trainer.strategy.root_device
    with without_collection():
        with CopyWithoutValues(device, settings.dtype) as copies:
            copied = copy.deepcopy(module)
        trained = [p for p in copied.parameters() if p.requires_grad]
        in_training = sum(p.nbytes for p in trained)
        constant = copies.nbytes + STATES_OF_ADAMW * in_training
        if settings.ema_decay and settings.ema_device in (None, device.type):
            constant += sum(tensor.nbytes for tensor in copied.tokenizer.state_dict().values())
        if settings.world_size > 1:
            # Gradients lie in the buffers by which they are reduced, also between steps.
            constant += in_training
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
        copied.step = settings.max_steps - 1
        with MemoryTrace() as trace, trainer.precision_plugin.train_step_context():
            samples = torch.zeros((TRACED_BATCH, *sample_size), dtype=settings.dtype, device=device)
            laid_out = lay_out(samples, settings.memory_format)
            scale = torch.ones((), device=device)
            copied.begin_step()
            # A batch before the last one leaves its gradients to it.
            for left in range(min(settings.accumulate, 2))[::-1]:
                copied.batches_in_step = left
                copied.differentiate(laid_out, TRACED_BATCH * [""], Tensor.backward, scale)
    return StepMemory(constant=constant, moments=frozenset(trace.moments))


@contextmanager
def without_collection() -> Iterator[None]:
    """Return a context in which memory is freed as soon as it is not used, and at no other time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
