"""The optimizers of a run, which step together on all ranks, or not at all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.objective import Objective
from vqtrain.optim.optimizer import NetworkOptimizer
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings
from vqtrain.training.settings import TrainerSettings


class Optimizers(ABC):
    """Updates all networks of a step by their gradients, together on all ranks, or not at all.

    Args:
        networks: Those of all networks by name, the main one first.
        settings: The ``trainer`` group.

    Attributes:
        scaler: Scales the loss of ``16-mixed``, so that gradients in float16 do not underflow.
        skipped_in_row: Steps that were skipped since the last one that was not, besides those in
            which the loss scale may just have been too high.
        skipped_steps: Steps of the run that were skipped.
    """

    def __init__(
        self, *, networks: Mapping[str, NetworkOptimizer], settings: TrainerSettings
    ) -> None:
        self.networks = networks
        self._is_sharded = settings.is_sharded
        self.skipped_in_row = self.skipped_steps = 0
        device = next(iter(networks.values())).parameters[0].device
        self.scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "16-mixed")
        self._loss_is_finite = torch.tensor(True, device=device)

    @abstractmethod
    def at(self, step: int) -> Mapping[str, NetworkOptimizer]:
        """Return the optimizers of the networks that train in a step, by the network."""

    @property
    def of_torch(self) -> list[torch.optim.Optimizer]:
        """The optimizers as torch's own, that of the main network first."""
        return [each.optimizer for each in self.networks.values()]

    def metrics(self, step: int) -> dict[str, float]:
        """Return what to log after a step."""
        rates = {
            f"train/{name}/learning_rate": optimizer.learning_rate_at(step)
            for name, optimizer in self.at(step).items()
        }
        if self.scaler.is_enabled():
            rates["train/loss_scale"] = self.scaler.get_scale()
        return {"train/skipped_steps": float(self.skipped_steps), **rates}

    @property
    def loss_scale(self) -> Float[Tensor, ""]:
        """The factor of the gradients of this step until they are complete; 1 if not scaled."""
        return self.scaler.scale(torch.ones((), device=self._loss_is_finite.device))

    def note_batch(self, is_finite: Bool[Tensor, ""]) -> None:
        """Note whether the loss of a batch of the step is finite."""
        self._loss_is_finite &= is_finite

    def step(
        self, step: int, call_step: Callable[[torch.optim.Optimizer], object]
    ) -> dict[str, Float[Tensor, ""]] | None:
        """Update the networks after the last batch of a step; collective.

        A step is skipped if the loss or a gradient is not finite. All ranks take it, or none: one
        that skips alone leaves the others waiting. A gradient that is not finite also lowers the
        loss scale, which is equal on all ranks as their reduced gradients are.

        Args:
            step: Its number.
            call_step: Calls the ``step`` of torch's optimizer.

        Returns:
            The norms of the gradients before clipping, by the network; None if it was skipped.
        """
        optimizers = self.at(step)
        if self._is_sharded:
            parameters = [p for each in optimizers.values() for p in each.parameters]
            distributed.average_gradients(parameters)
        for each in optimizers.values():
            self.scaler.unscale_(each.optimizer)
        norms = {name: each.gradient_norm() for name, each in optimizers.items()}
        are_finite = torch.stack([self._loss_is_finite, *(n.isfinite() for n in norms.values())])
        is_applied = distributed.all_true(are_finite.all())
        if is_applied:
            for name, each in optimizers.items():
                each.step(step, norms[name], call_step)
            self.skipped_in_row = 0
        else:
            self.skipped_steps += 1
        scale = self.scaler.get_scale()
        if self.scaler.is_enabled():
            self.scaler.update()
        if not is_applied and not 1 < scale > self.scaler.get_scale():
            self.skipped_in_row += 1
        for network in self.networks.values():
            network.zero_grad()
        self._loss_is_finite.fill_(True)
        return norms if is_applied else None


@final
class TokenizerOptimizers(Optimizers):
    """Updates a tokenizer and its discriminator.

    Args:
        parameters: What the generator's terms train, with names, on the device on which it trains.
        objective: Has the discriminator, or none.
        trainer_settings: The ``trainer`` group.
        optim_settings: The ``optim`` group, for the generator.
        discriminator_settings: ``optim.discriminator``.

    Attributes:
        generator: That of the tokenizer and of an alignment's own part.
        discriminator: That of the discriminator, or None.

    Raises:
        ConfigError: If a warm-up is longer than the steps of its network.
    """

    def __init__(
        self,
        *,
        parameters: Sequence[tuple[str, nn.Parameter]],
        objective: Objective,
        trainer_settings: TrainerSettings,
        optim_settings: OptimSettings,
        discriminator_settings: DiscriminatorOptimSettings,
    ) -> None:
        self._objective = objective
        self.generator = NetworkOptimizer(
            parameters=parameters,
            settings=optim_settings,
            clip=trainer_settings.clip,
            steps=range(trainer_settings.max_steps),
        )
        networks = {"generator": self.generator}
        self.discriminator: NetworkOptimizer | None = None
        if objective.discriminator is not None:
            first = objective.adversarial.weight.start_step
            self.discriminator = networks["discriminator"] = NetworkOptimizer(
                parameters=list(objective.discriminator.named_parameters()),
                settings=discriminator_settings,
                clip=discriminator_settings.clip,
                steps=range(first, trainer_settings.max_steps),
            )
        super().__init__(networks=networks, settings=trainer_settings)

    def at(self, step: int) -> Mapping[str, NetworkOptimizer]:
        """Leave the discriminator out before its first step."""
        if self._objective.discriminator_updated(step):
            return self.networks
        return {"generator": self.generator}
