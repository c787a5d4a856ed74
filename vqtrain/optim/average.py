"""The exponential moving average of the weights."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import final

import torch
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.errors import CheckpointError, ConfigError


@final
class WeightAverage:
    """An exponential moving average of the weights of a module.

    Parameters are averaged, buffers are copied: a count or the table of a codebook that keeps its
    own average must not be averaged again. The decay of step t is min(decay, (1 + t) / (10 + t)),
    so that the random initial weights lose their influence early. It costs one copy of the weights,
    and another one while it is applied. On a device of its own it also costs that each step copies
    the weights there, and waits for that.

    Args:
        module: The module to average, after weights that depend on data are initialized.
        decay: Share of the average that a step keeps, above 0 and below 1.
        fixed: Tensors that no step changes; their average is what they are.
        device: Where both copies are; None for where the weights are.

    Raises:
        ConfigError: If ``decay`` is out of range.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        decay: float,
        fixed: Collection[str] = (),
        device: str | None = None,
    ) -> None:
        if not 0.0 < decay < 1.0:
            raise ConfigError(f"trainer.ema_decay must be above 0 and below 1, got {decay}")
        self._decay, self._fixed, self._device = decay, frozenset(fixed), device
        self._tensors = self._copy(module)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the weights of the module.

        Args:
            module: The module. If it was moved to another device or dtype, the average follows,
                but for a device of its own.
            step: Number of the update that was just made, from 0.
        """
        current = {
            name: tensor.to(self._device or tensor.device)
            for name, tensor in module.state_dict().items()
            if name not in self._fixed
        }
        for name, tensor in current.items():
            self._tensors[name] = self._tensors[name].to(tensor.device, tensor.dtype)
        parameters = (name for name, _ in module.named_parameters(remove_duplicate=False))
        averaged = [name for name in parameters if name in current]
        torch._foreach_lerp_(
            [distributed.part_of(self._tensors[name]) for name in averaged],
            [distributed.part_of(current[name]) for name in averaged],
            1.0 - min(self._decay, (1 + step) / (10 + step)),
        )
        for name in current.keys() - set(averaged):
            self._tensors[name].copy_(current[name])

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights, named as in the module's own state dict; not copied."""
        return dict(self._tensors)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load averaged weights from a checkpoint.

        Raises:
            CheckpointError: If names or shapes are not those of the module.
        """
        for name in sorted(self._tensors.keys() | state.keys()):
            if name not in state:
                raise CheckpointError(f"the averaged weights lack {name!r}")
            if name not in self._tensors:
                raise CheckpointError(f"the averaged weights hold {name!r}, the tokenizer does not")
            if state[name].shape != self._tensors[name].shape:
                raise CheckpointError(
                    f"the averaged weight {name!r} has the shape {list(state[name].shape)}, "
                    f"it must be {list(self._tensors[name].shape)}"
                )
        for name, tensor in self._tensors.items():
            tensor.copy_(distributed.split(state[name], like=tensor))

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Put the averaged weights into the module, and restore its own at the end, bit for bit.

        Values are copied into the existing tensors, so that optimizers, compiled code and gradients
        still refer to them. Buffers are restored as well.
        """
        own = self._copy(module)
        try:
            module.load_state_dict(self._tensors)
            yield
        finally:
            module.load_state_dict(own)

    def _copy(self, module: nn.Module) -> dict[str, Tensor]:
        """Copy the weights to where the average is."""
        return {
            name: tensor.detach().to(self._device or tensor.device, copy=True)
            for name, tensor in module.state_dict().items()
        }
