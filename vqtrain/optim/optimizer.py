"""The optimizer of one network, with its learning-rate schedule and its gradient clipping."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

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
        self.optimizer = build_optimizer(parameters, settings)
        self._lr, self._clip, self._steps = settings.lr, clip, steps
        self._schedule = Schedule(
            kind=settings.schedule, warmup_steps=settings.warmup_steps, max_steps=len(steps)
        )

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step of the run, counted from 0."""
        return self._lr * self._schedule.factor(step - self._steps.start)

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradient over all parameters."""
        return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def step(
        self, step: int, norm: Tensor, call_step: Callable[[torch.optim.Optimizer], object]
    ) -> None:
        """Clip the gradient, set the learning rate and step the optimizer.

        Args:
            step: Number of the step of the run.
            norm: From ``gradient_norm``.
            call_step: Calls the ``step`` of torch's optimizer.
        """
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self._clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step)
        call_step(self.optimizer)
