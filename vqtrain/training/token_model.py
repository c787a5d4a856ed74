"""Trains a model over token ids."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast, final

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from vqtrain import distributed
from vqtrain.generation.base import TokenModel
from vqtrain.ops.noise import SampleNoise
from vqtrain.ops.profiling import Call
from vqtrain.optim.optimizer import NetworkOptimizer
from vqtrain.optim.settings import OptimSettings
from vqtrain.training.checkpoints import copy_of, optimizer_state
from vqtrain.training.means import Means
from vqtrain.training.optimizers import Optimizers
from vqtrain.training.settings import TrainerSettings
from vqtrain.training.token_data import TokenBatch, TokenData
from vqtrain.training.trained import Advice, Contents, Trained, Validator

MODEL = "model"
# In place of a step, in the seeds of noise that is the same in each validation.
VALIDATION = -1


@final
class ModelOptimizer(Optimizers):
    """Updates a model over token ids.

    Args:
        model: On the device on which it trains.
        trainer_settings: The ``trainer`` group.
        optim_settings: The ``optim`` group.

    Raises:
        ConfigError: If the warm-up is longer than the run.
    """

    def __init__(
        self,
        *,
        model: TokenModel,
        trainer_settings: TrainerSettings,
        optim_settings: OptimSettings,
    ) -> None:
        self.network = NetworkOptimizer(
            parameters=list(model.named_parameters()),
            settings=optim_settings,
            clip=trainer_settings.clip,
            steps=range(trainer_settings.max_steps),
        )
        super().__init__(networks={MODEL: self.network}, settings=trainer_settings)

    def at(self, step: int) -> Mapping[str, NetworkOptimizer]:
        """Return the one that there is."""
        del step
        return self.networks


@final
class TokenModelTraining(Trained):
    """Trains a model over token ids to predict them.

    All that a step draws at random is a function of the seed, the step and the place of a sample in
    it, so that a step is the same however it is split over ranks and batches.

    Args:
        model: What is trained.
        trainer_settings: The ``trainer`` group.
        optim_settings: The ``optim`` group.
        seed: Seed of the run.
    """

    advice: ClassVar[Advice] = Advice(
        memory="raise transformer.accumulate, which makes the same steps of smaller batches",
        nonfinite="Lower transformer.lr",
        resume="the same command",
    )

    def __init__(
        self,
        *,
        model: TokenModel,
        trainer_settings: TrainerSettings,
        optim_settings: OptimSettings,
        seed: int,
    ) -> None:
        super().__init__(trainer_settings=trainer_settings, seed=seed)
        self.model, self.optim_settings = model, optim_settings
        self.means = Means()
        self.losses: list[Tensor] = []

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Build the optimizer; every step sets its learning rate."""
        self.optim = ModelOptimizer(
            model=self.model,
            trainer_settings=self.settings,
            optim_settings=self.optim_settings,
        )
        return self.optim.of_torch

    def on_fit_start(self) -> None:
        """Leave the loss scale to the optimizer."""
        self.take_over_scaling()

    def training_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add one batch to the step, and on its last batch update the model once."""
        del batch_idx  # Lightning's, which begins at 0 on resume
        places = distributed.places(self.batches_in_step, len(batch.mask))
        noise = SampleNoise(seeds=[(self.seed, self.step, place) for place in places])
        self.batches_in_step = (self.batches_in_step + 1) % self.settings.accumulate

        with self.reduce_gradients_if(self.step_has_ended):
            loss = self.model.loss(batch.token_ids, batch.conditions, noise).mean()
            self.manual_backward(self.optim.loss_scale * loss / self.settings.accumulate)
        self.losses.append(loss.detach())
        self.optim.note_batch(loss.detach().isfinite())
        if not self.step_has_ended:
            return

        norms = self.optim.step(self.step, self.call_step)
        if norms is not None:  # else all is as it was before the step
            self.means.add({"train/model/gradient_norm": norms[MODEL]})
            for each in self.losses:
                self.means.add({"train/loss": each})
        self.losses = []
        self.step += 1

    def logged_metrics(self) -> dict[str, float]:
        """Return the metrics of training since the last call; collective."""
        means = self.means.take()
        if "train/loss" in means and not self.model.is_bound:
            means["train/bits_per_token"] = means["train/loss"] / math.log(2)
        return means | self.optim.metrics(self.step - 1)

    def hint(self, values: Mapping[str, float]) -> None:
        """Return None: the metrics say it all."""
        del values

    def contents(self, summary: Mapping[str, object]) -> Contents:
        """Collect the model and its optimizer; collective."""
        del summary
        self.means.gather()
        return Contents(
            result={MODEL: copy_of(self.model.state_dict())},
            state={
                "optimizer": optimizer_state(self.optim.networks[MODEL]),
                "means": self.means.state_dict(),
            },
        )

    def restore(self, checkpoint: Mapping[str, object]) -> None:
        """Continue from a checkpoint."""
        state = cast(Mapping[str, Mapping[str, object]], checkpoint["training"])
        self.model.load_state_dict(cast(Mapping[str, Tensor], checkpoint[MODEL]))
        self.optim.networks[MODEL].load_state_dict(state["optimizer"])
        self.means.load_state_dict(state["means"], self.device)

    def export(self, checkpoint: Mapping[str, object], run_dir: Path) -> None:
        """Write nothing: the checkpoints are what is used."""
        del checkpoint, run_dir

    def conclude(self, config: Mapping[str, object]) -> None:
        """Return None: the results say it all."""
        del config

    def calls(self) -> list[Call]:
        """List the calls of a training step, by their parts."""
        return [
            Call(part="data", owner=self.trainer.strategy, method="batch_to_device"),
            Call(part="model", owner=self.model, method="loss"),
            Call(part="optimizer", owner=self.optim, method="step"),
        ]


@final
class CodeLength(Validator):
    """Measures how many bits the model needs for the ids of held-out samples.

    Args:
        data: The data of the run.
        num_positions: Positions of a sample: an image's pixels.
    """

    def __init__(self, *, data: TokenData, num_positions: int) -> None:
        super().__init__()
        self.data, self.num_positions = data, num_positions

    @property
    def score(self) -> float | None:
        """Fewer bits are better."""
        bits = self.results.get("val/bits_per_pixel", math.nan)
        return -bits if math.isfinite(bits) else None

    @torch.no_grad()
    def measure(self, trainer: Trainer, module: Trained) -> dict[str, float]:
        """Run over the validation samples; collective."""
        assert isinstance(module, TokenModelTraining)
        model = module.model.eval()
        total = torch.zeros((), dtype=torch.float64, device=module.device)
        for loaded in self.data.validation_batches():
            batch = loaded.to(module.device)
            seeds = [(module.seed, VALIDATION, number) for number in batch.numbers]
            noise = SampleNoise(seeds=seeds)
            with trainer.precision_plugin.forward_context():
                nats = model.nats(batch.token_ids, batch.conditions, noise)
            total += nats.double()[batch.mask].sum()
        model.train()
        nats_of_all = distributed.all_reduce_sum(total).item()
        bits = nats_of_all / math.log(2) / len(self.data.validation)
        return {
            "val/bits_per_token": bits / model.form.num_tokens,
            "val/bits_per_pixel": bits / self.num_positions,
        }

    def picture_at(self, step: int) -> None:
        """Return None: ids are no images."""
        del step
