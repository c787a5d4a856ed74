"""The optimizer of one network, with its learning-rate schedule and its gradient clipping."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.optim.schedule import Schedule
from vqtrain.optim.settings import OptimSettings, build_optimizer


@final
class NetworkOptimizer:
    """Updates the parameters of one network.

    Args:
        parameters: Parameters with their names, on the device on which they train.
        settings: Optimizer and schedule.
        clip: Largest norm of the gradient, or None.
        steps: The steps of the run in which the network is trained; its schedule covers them.

    Raises:
        ConfigError: If the warm-up is longer than these steps.
    """

    def __init__(
        self,
        *,
        parameters: Sequence[tuple[str, nn.Parameter]],
        settings: OptimSettings,
        clip: float | None,
        steps: range,
    ) -> None:
        self.parameters = [parameter for _, parameter in parameters]
        # torch's optimizer has this rank's parts of parameters that are split over ranks.
        parts = [(name, part_of(parameter)) for name, parameter in parameters]
        self._whole = {part: whole for (_, part), (_, whole) in zip(parts, parameters, strict=True)}
        self.optimizer = build_optimizer(parts, settings)
        self._lr, self._clip, self._steps = settings.lr, clip, steps
        self._schedule = Schedule(
            kind=settings.schedule, warmup_steps=settings.warmup_steps, max_steps=len(steps)
        )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step of the run, counted from 0."""
        return self._lr * self._schedule.factor(step - self._steps.start)

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradient over all parameters; collective where they are split."""
        return distributed.gradient_norm(self.parameters)

    def step(
        self, step: int, norm: Tensor, call_step: Callable[[torch.optim.Optimizer], object]
    ) -> None:
        """Clip the gradient, set the learning rate and step the optimizer.

        Args:
            step: Number of the step of the run.
            norm: From ``gradient_norm``.
            call_step: Calls the ``step`` of torch's optimizer.
        """
        for part, whole in self._whole.items():
            if part is not whole:
                part.grad = None if whole.grad is None else distributed.part_of(whole.grad)
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(list(self._whole), self._clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step)
        call_step(self.optimizer)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in {*self._whole, *self.parameters}:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state of torch's optimizer; of parameters that are split, it is split too."""
        state = self.optimizer.state_dict()
        return {**state, "state": self._each(state["state"], distributed.joined)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of whole tensors, whatever their layouts in memory."""

        def part(tensor: Tensor, like: Tensor) -> Tensor:
            # A fused optimizer walks over both memories as one.
            own = torch.empty_like(distributed.part_of(like))
            return own.copy_(distributed.part_of(distributed.split(tensor, like)))

        self.optimizer.load_state_dict({**state, "state": self._each(state["state"], part)})

    def _each(
        self, state: Mapping[int, Mapping[str, Tensor]], change: Callable[[Tensor, Tensor], Tensor]
    ) -> dict[int, dict[str, Tensor]]:
        """Change all that a state holds for each element of a parameter."""
        groups = self.optimizer.param_groups
        wholes = [self._whole[part] for group in groups for part in group["params"]]
        return {
            number: {
                name: change(tensor, wholes[number]) if tensor.ndim else tensor  # else a count
                for name, tensor in values.items()
            }
            for number, values in state.items()
        }


def part_of(parameter: nn.Parameter) -> nn.Parameter:
    """Return this rank's part of a parameter, in the same memory; itself if it is not split."""
    if not distributed.is_split(parameter):
        return parameter
    return nn.Parameter(distributed.part_of(parameter), requires_grad=parameter.requires_grad)
