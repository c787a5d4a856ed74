"""The training step."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vqtrain import distributed
from vqtrain.data.batches import Batch
from vqtrain.layers.statistics import CodeStatistics
from vqtrain.objective import Objective
from vqtrain.ops.pixels import to_images
from vqtrain.ops.random import seed_torch
from vqtrain.optim.average import WeightAverage
from vqtrain.optim.schedule import Schedule
from vqtrain.optim.settings import OptimSettings, build_optimizer
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training.settings import TrainerSettings
from vqtrain.training.window import Window

# Codes start from at least this many latents each, where 16 steps of data hold so many.
LATENTS_PER_CODE = 4
MAX_INITIAL_STEPS = 16


class TokenizerTraining(LightningModule):
    """Moves a tokenizer by the gradients of its objective, one step at a time.

    A step is ``trainer.accumulate`` batches on every rank. Its number, ``step``, is ours:
    Lightning's counts every optimizer. All that a step draws at random is a function of the seed,
    the step and the rank.

    Args:
        tokenizer: What is trained.
        objective: What is minimized.
        trainer_settings: The ``trainer`` group.
        optim_settings: The ``optim`` group.
        seed: Seed of the run.
    """

    loss_is_finite: Tensor

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        objective: Objective,
        trainer_settings: TrainerSettings,
        optim_settings: OptimSettings,
        seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.tokenizer, self.objective = tokenizer, objective
        self.settings, self.optim_settings = trainer_settings, optim_settings
        self.seed = seed
        self.schedule = Schedule(
            kind=optim_settings.schedule,
            warmup_steps=optim_settings.warmup_steps,
            max_steps=trainer_settings.max_steps,
        )
        self.average: WeightAverage | None = None
        codebook = tokenizer.codebook
        self.window = Window(num_codebooks=codebook.num_codebooks, size=codebook.size)
        self.register_buffer("loss_is_finite", torch.tensor(True), persistent=False)
        self.step = 0
        self.batches_in_step = 0
        self.skipped_in_row = 0
        self.skipped_steps = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the generator's optimizer; its learning rate is set anew at every step."""
        return build_optimizer(self.tokenizer.named_parameters(), self.optim_settings)

    @property
    def optimizer(self) -> LightningOptimizer:
        """The generator's optimizer, once training has begun."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer), "there is one"
        return optimizer

    @property
    def step_has_ended(self) -> bool:
        """Whether the last batch was the last one of its step."""
        return self.batches_in_step == 0

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate with which a step is made, counted from 0."""
        return self.optim_settings.lr * self.schedule.factor(step)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the step, and on its last batch move everything once."""
        del batch_idx  # Lightning's, and it begins anew on resume
        if self.batches_in_step == 0:
            seed_torch(self.seed, "step", self.step, distributed.rank())
        self.batches_in_step = (self.batches_in_step + 1) % self.settings.accumulate

        # Forward once, one total, one backward.
        images = to_images(batch.images, self.settings.dtype).contiguous(
            memory_format=torch.channels_last
        )
        with self.reduce_gradients_if(self.step_has_ended):
            output = self.tokenizer(images)
            terms = self.objective(images, output)
            self.manual_backward(terms.total / self.settings.accumulate)
        self.window.add(
            {**terms.parts, "total": terms.total.detach()},
            output.quantized.metrics,
            output.quantized.token_ids,
        )
        self.loss_is_finite &= terms.total.detach().isfinite()
        if not self.step_has_ended:
            return

        # All ranks take the step, or none: one that skips alone leaves the others waiting.
        parameters = list(self.tokenizer.parameters())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if distributed.all_true(self.loss_is_finite & norm.isfinite()):
            self.apply_gradients(parameters, norm)
            self.skipped_in_row = 0
        else:
            self.forget_step()
        self.optimizer.zero_grad()
        self.loss_is_finite.fill_(True)
        self.step += 1

    def apply_gradients(self, parameters: list[nn.Parameter], norm: Tensor) -> None:
        """Clip, step the optimizer, the codebook and the average of the weights."""
        if self.settings.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.settings.clip, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate_at(self.step)
        self.optimizer.step()
        seed_torch(self.seed, "codebook", self.step)
        self.tokenizer.codebook.update(self.step)
        if self.average is not None:
            self.average.update(self.tokenizer, self.step)
        self.window.add_step({"gradient_norm": norm})

    def forget_step(self) -> None:
        """Leave everything as it was before the step, and count it."""
        for module in self.tokenizer.codebook.modules():
            if isinstance(module, CodeStatistics):
                module.clear()
        self.window.forget_step()
        self.skipped_in_row += 1
        self.skipped_steps += 1

    def reduce_gradients_if(self, step_ends: bool) -> AbstractContextManager[None]:
        """Return a context in which gradients are reduced over ranks only at the end of a step."""
        model = self.trainer.strategy.model
        if isinstance(model, DistributedDataParallel) and not step_ends:
            return model.no_sync()
        return nullcontext()

    @torch.no_grad()
    def initialize_codebook(self, batches: Iterable[Batch]) -> None:
        """Let the codebook start from latents of the first steps' images, over all ranks.

        Args:
            batches: Training batches of this rank from the first one on.
        """
        latents: list[Tensor] = []
        wanted = LATENTS_PER_CODE * self.tokenizer.vocab_size
        self.tokenizer.eval()
        for number, batch in enumerate(batches, start=1):
            images = to_images(batch.images.to(self.device), self.settings.dtype)
            with self.trainer.precision_plugin.forward_context():
                z = self.tokenizer.latents(images)
            latents.append(distributed.all_gather(z.to(self.settings.dtype)))
            steps, within = divmod(number, self.settings.accumulate)
            have = sum(z.numel() // z.shape[1] for z in latents)
            if within == 0 and (have >= wanted or steps == MAX_INITIAL_STEPS):
                break
        self.tokenizer.train()
        seed_torch(self.seed, "initialize")
        self.tokenizer.codebook.initialize(torch.cat(latents))

    def begin_average(self) -> None:
        """Let the average of the weights begin at the weights of this moment."""
        if self.settings.ema_decay:
            self.average = WeightAverage(self.tokenizer, decay=self.settings.ema_decay)
