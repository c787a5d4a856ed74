"""One network's optimizer, with its schedule and its bound on the gradient."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor, nn

from vqtrain.optim.schedule import Schedule
from vqtrain.optim.settings import OptimSettings, build_optimizer


@final
class Mover:
    """Moves the parameters of one network by its gradients.

    Args:
        parameters: Parameters with their names, on the device on which they will be moved.
        settings: Optimizer and schedule.
        schedule: The learning rate's factor, counted from ``start_step``.
        start_step: Step of the run at which this network begins to move.
        clip: Largest norm of the gradient, or None.
    """

    def __init__(
        self,
        *,
        parameters: Sequence[tuple[str, nn.Parameter]],
        settings: OptimSettings,
        schedule: Schedule,
        start_step: int,
        clip: float | None,
    ) -> None:
        self.parameters = [parameter for _, parameter in parameters]
        self.optimizer = build_optimizer(parameters, settings)
        self._lr, self._schedule = settings.lr, schedule
        self._start_step, self._clip = start_step, clip

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate with which a step of the run is made, counted from 0."""
        return self._lr * self._schedule.factor(step - self._start_step)

    def gradient_norm(self) -> Tensor:
        """Return the norm of the gradient over all parameters."""
        return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def move(
        self, step: int, norm: Tensor, make_step: Callable[[torch.optim.Optimizer], object]
    ) -> None:
        """Clip the gradient and step the optimizer.

        Args:
            step: Number of the step.
            norm: What ``gradient_norm`` returned.
            make_step: Calls the optimizer's ``step``.
        """
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self._clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step)
        make_step(self.optimizer)
