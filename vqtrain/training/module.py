"""The training step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import ClassVar, Protocol, cast

import torch
from jaxtyping import Float
from lightning.pytorch import Trainer
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.codebooks.base import Quantized
from vqtrain.data.loading.batches import Batch
from vqtrain.latent_noise.base import LatentNoise
from vqtrain.losses.parts.terms import Terms
from vqtrain.objective import Objective
from vqtrain.ops.precision import without_autocast
from vqtrain.ops.profiling import Call
from vqtrain.ops.seeds import seed_torch
from vqtrain.optim.average import WeightAverage
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.training import tokenizer_state
from vqtrain.training.acceleration import compile_parts, lay_out, lay_out_weights, recompute
from vqtrain.training.accumulation import Accumulation
from vqtrain.training.collapse import CollapseHint
from vqtrain.training.freezing import FrozenParts
from vqtrain.training.launch import check_trainer
from vqtrain.training.optimizers import TokenizerOptimizers
from vqtrain.training.settings import TrainerSettings
from vqtrain.training.sharding import check_sharding, shard
from vqtrain.training.trained import Advice, Contents, Trained
from vqtrain.training.window import Window

# Codes start from at least this many latents each, where 16 steps of data hold so many.
LATENTS_PER_CODE = 4
MAX_INITIAL_STEPS = 16


class Measures(Protocol):
    """What ``vqtrain.training.validation`` does."""

    def measure(self, trainer: Trainer, module: "TokenizerTraining") -> dict[str, float]:
        """Measure all validation images; collective."""


class TokenizerTraining(Trained):
    """Trains a tokenizer, and its discriminator, on the gradients of their objective.

    Any Lightning ``Trainer`` can fit it on a ``TrainingData``: it initializes the codebook, steps
    both optimizers, validates and logs by itself. ``vqtrain train`` does the latter two in a fixed
    order with checkpoints, see ``vqtrain.training.step_end``.

    All that a step draws at random is a function of the seed, the step and the rank.

    Args:
        tokenizer: What is trained.
        objective: What is minimized.
        latent_noise: Changes the latents that the decoder gets in training, or None.
        trainer_settings: The ``trainer`` group.
        optim_settings: The ``optim`` group, for the tokenizer.
        discriminator_settings: ``optim.discriminator``.
        seed: Seed of the run.

    Attributes:
        codebook_is_new: Whether the codebook is to be initialized from data.
        has_begun: Whether it was, and the average of the weights has started.
        validation: Measures reconstructions when Lightning validates, or None.
    """

    latent_noise: LatentNoise | None
    optim: TokenizerOptimizers
    advice: ClassVar[Advice] = Advice(
        memory="lower data.batch_size and raise trainer.accumulate by as much, which makes the "
        "same steps",
        nonfinite="Lower optim.lr or trainer.clip, or look at the data",
        resume="resume={run_dir}",
    )

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        objective: Objective,
        latent_noise: LatentNoise | None = None,
        trainer_settings: TrainerSettings,
        optim_settings: OptimSettings,
        discriminator_settings: DiscriminatorOptimSettings,
        seed: int,
    ) -> None:
        super().__init__(trainer_settings=trainer_settings, seed=seed)
        self.tokenizer, self.objective = tokenizer, objective
        self.latent_noise = latent_noise
        self.optim_settings = optim_settings
        self.discriminator_settings = discriminator_settings
        self.average: WeightAverage | None = None
        self.codebook_is_new, self.has_begun = True, False
        self.validation: Measures | None = None
        self.collapse = CollapseHint()
        codebook = tokenizer.codebook
        self.window = Window(num_codebooks=codebook.num_codebooks, size=codebook.size)
        self.frozen = FrozenParts(tokenizer, trainer_settings.freeze)
        self.frozen.check(tokenizer, objective, self.layers)
        if trainer_settings.is_sharded:
            check_sharding(trainer_settings, tokenizer, objective)
        self.batches = self.accumulation()
        self.aligned: Tensor | None = None
        if objective.alignment is not None and objective.alignment.layer is not None:
            layer = tokenizer.get_submodule(objective.alignment.layer)
            layer.register_forward_hook(self.note_aligned)
        # Before gradients are reduced over ranks, whose buffers have the layout of the weights.
        lay_out_weights(self, trainer_settings.memory_format)
        networks = {"encoder": tokenizer.encoder, "decoder": tokenizer.decoder}
        recompute(networks, trainer_settings.checkpoint_activations)

    def configure_model(self) -> None:
        """Split the networks over the ranks, now that there are ranks; Lightning may ask twice."""
        if self.settings.is_sharded and not any(map(distributed.is_split, self.parameters())):
            self.to(self.settings.dtype)  # of which their parts are
            shard(self.tokenizer)
            self.batches = self.accumulation()

    def accumulation(self) -> Accumulation:
        """Begin to add up gradients of the parameters that there are now."""
        trained = [parameter for _, parameter in self.generator_parameters()]
        return Accumulation(trained, self.settings.accumulate)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Build one optimizer for each network; every step sets its learning rate."""
        self.optim = TokenizerOptimizers(
            parameters=self.generator_parameters(),
            objective=self.objective,
            trainer_settings=self.settings,
            optim_settings=self.optim_settings,
            discriminator_settings=self.discriminator_settings,
        )
        return self.optim.of_torch

    def generator_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """List what the generator's terms train: the tokenizer, and an alignment's own part."""
        alignment = self.objective.alignment
        others = [] if alignment is None else list(alignment.named_parameters(prefix="alignment"))
        return [*self.tokenizer.named_parameters(), *others]

    def change_latents(self, quantized: Quantized) -> Tensor:
        """Return what the decoder gets in training."""
        assert self.latent_noise is not None, "it is called where there is one"
        codes = self.tokenizer.codebook_vectors if self.latent_noise.needs_codes else None
        changed: Tensor = self.latent_noise(quantized.z_q, quantized.token_ids, codes)
        return changed

    def note_aligned(self, layer: nn.Module, inputs: object, output: Tensor) -> None:
        """Keep the output of the layer that is aligned."""
        del layer, inputs
        self.aligned = output

    @property
    def layers(self) -> dict[str, Tensor]:
        """The weights at which terms with adaptive weights are compared with the others.

        That of the alignment is the last one before the codebook.
        """
        name, tokenizer = self.objective.adversarial.layer, self.tokenizer
        last = tokenizer.decoder.last_layer.weight
        assert isinstance(last, Tensor), "the decoder's contract"
        return {
            "adversarial": last if name is None else tokenizer.get_parameter(name),
            "alignment": tokenizer.project_in.weight,
        }

    def on_fit_start(self) -> None:
        """Initialize the codebook and the weight average, unless they come from a checkpoint."""
        check_trainer(self.trainer, self.settings)
        self.take_over_scaling()
        if not self.has_begun:
            data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
            if self.codebook_is_new:
                self.initialize_codebook(data.first_batches())
            self.begin_average()
        self.frozen.begin(self.tokenizer)
        if self.settings.compile:
            self.compile_clock = compile_parts(
                self.tokenizer, self.objective, accumulate=self.settings.accumulate
            )

    def train(self, mode: bool = True) -> "TokenizerTraining":
        """Set the mode of all modules but the frozen ones, which stay in eval mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def train_tokenizer(self) -> None:
        """Put the tokenizer back into train mode, but for what is frozen."""
        self.tokenizer.train()
        self.frozen.eval()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Add one batch to the step, and on its last batch update all networks once."""
        del batch_idx  # Lightning's, which begins at 0 on resume
        if self.batches_in_step == 0:
            seed_torch(self.seed, "step", self.step, distributed.rank())
            self.begin_step()
        self.batches_in_step = (self.batches_in_step + 1) % self.settings.accumulate

        # Forward once, one total, one backward; on the last batch with the adversarial weight.
        samples = self.tokenizer.to_images(batch.samples, self.settings.dtype)
        samples = lay_out(samples, self.settings.memory_format)
        scale = self.optim.loss_scale
        with self.reduce_gradients_if(self.step_has_ended):
            terms = self.differentiate(samples, batch.texts, self.manual_backward, scale)
        self.optim.note_batch(terms.is_finite())
        if not self.step_has_ended:
            return

        norms = self.optim.step(self.step, self.call_step)
        if norms is None:  # leave everything as it was before the step
            self.tokenizer.codebook.discard_step()
            self.objective.discard_step()
        else:
            self.end_step(norms, terms)
        self.batches.clear()
        self.step += 1

    def begin_step(self) -> None:
        """Begin a step of all parts that draw random numbers or count."""
        for part in (self.tokenizer.codebook, self.tokenizer.decoder, self.objective):
            part.begin_step(self.step, self.seed)
        if self.latent_noise is not None:
            self.latent_noise.begin_step(self.step, self.seed)

    def differentiate(
        self,
        samples: Float[Tensor, "b c *size"],
        texts: Sequence[str],
        backward: Callable[[Tensor], None],
        scale: Float[Tensor, ""],
    ) -> Terms:
        """Add the gradients of one batch to those of the step, and return its objective.

        Args:
            samples: In [-1, 1].
            texts: Of the samples, if an alignment needs them.
            backward: Adds the gradients of a scalar to those of the parameters.
            scale: What gradients are multiplied by in half precision.
        """
        change = None if self.latent_noise is None else self.change_latents
        output = self.tokenizer(samples, change=change)
        output = self.frozen.without_codebook_loss(output)
        terms: Terms = self.objective(
            samples,
            output,
            self.layers,
            self.step,
            is_last=self.step_has_ended,
            aligned=self.aligned,
            texts=texts,
            scale=scale,
        )
        # Autocast would narrow the gradients of what was computed in float32.
        with without_autocast(samples):
            self.batches.add(terms, output, backward, scale)
        self.aligned = None  # here, as what is computed again notes it again
        return terms

    def end_step(self, norms: Mapping[str, Tensor], last: Terms) -> None:
        """Update the codebook and the averages; report norms of gradients, and the last batch."""
        seed_torch(self.seed, "codebook", self.step)
        is_frozen = "codebook" in self.frozen.parts
        health = {} if is_frozen else self.tokenizer.codebook.update(self.step)
        self.objective.update()
        if self.average is not None:
            self.average.update(self.tokenizer, self.step)
        values = {f"{name}/gradient_norm": norm for name, norm in norms.items()}
        values |= {f"codebook/{name}": value for name, value in health.items()}
        values |= last.balances
        self.batches.report(self.window)
        self.window.add_step(values)

    def logged_metrics(self) -> dict[str, float]:
        """Return the metrics of training since the last call; collective."""
        return self.window.means() | self.optim.metrics(self.step - 1)

    def hint(self, values: Mapping[str, float]) -> str | None:
        """Tell of a codebook that has collapsed."""
        return self.collapse.of(values, self.tokenizer.vocab_size, self.window.tokens)

    def contents(self, summary: Mapping[str, object]) -> Contents:
        """Collect the tokenizer, and all that trains it; collective."""
        return tokenizer_state.collect(self, summary)

    def restore(self, checkpoint: Mapping[str, object]) -> None:
        """Continue from a checkpoint."""
        tokenizer_state.load(self, cast(tokenizer_state.TokenizerCheckpoint, checkpoint))

    def export(self, checkpoint: Mapping[str, object], run_dir: Path) -> None:
        """Write the tokenizer directory anew."""
        saved = cast(tokenizer_state.TokenizerCheckpoint, checkpoint)["tokenizer"]
        config = cast(dict[str, object], saved["config"])
        storage.write(run_dir / "tokenizer", config, saved["weights"])

    def conclude(self, config: Mapping[str, object]) -> str | None:
        """Say what has stayed as it was at the start."""
        weights = [each.state_dict() for each in (self.tokenizer, self.average) if each is not None]
        return self.frozen.conclude(*weights, source=cast(str | None, config["init_from"]))

    def calls(self) -> list[Call]:
        """List the calls of a training step, by their parts."""
        tokenizer, objective = self.tokenizer, self.objective
        modules: list[tuple[str, nn.Module | None]] = [
            *(("encoder", part) for part in (tokenizer.encoder, tokenizer.project_in)),
            ("codebook", tokenizer.codebook),
            *(("decoder", part) for part in (tokenizer.project_out, tokenizer.decoder)),
            *((name, term.loss) for name, term in objective.terms.items()),
            ("alignment", objective.alignment),
            ("discriminator", objective.adversarial),
        ]
        methods: list[tuple[str, object, str]] = [
            ("data", self.trainer.strategy, "batch_to_device"),
            ("data", tokenizer, "to_images"),
            ("codebook", tokenizer.codebook, "begin_step"),
            ("codebook", tokenizer.codebook, "update"),
            ("optimizer", self.optim, "step"),
            ("optimizer", self.average, "update"),
        ]
        return [
            *(Call(part=part, owner=each) for part, each in modules if each is not None),
            *(
                Call(part=part, owner=owner, method=method)
                for part, owner, method in methods
                if owner is not None
            ),
        ]

    def validation_step(self, batch: object, batch_idx: int) -> None:
        """Validate: a batch of Lightning's stands for one pass over all validation images."""
        del batch, batch_idx
        if self.validation is not None and not self.trainer.sanity_checking:
            # Weights that were swapped in inference mode could not be trained any more.
            with torch.inference_mode(False):
                results = self.validation.measure(self.trainer, self)
            self.log_dict(results, batch_size=1)

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the tokenizer, with its averaged weights if there are any; see ``Tokenizer``."""
        with self.averaged_weights():
            self.tokenizer.save_pretrained(folder)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the tokenizer has its averaged weights, if there are any."""
        return self.average.applied_to(self.tokenizer) if self.average else nullcontext()

    @torch.no_grad()
    def initialize_codebook(self, batches: Iterable[Batch]) -> None:
        """Let the codebook start from latents of the first steps' images, over all ranks.

        The projection before it changes too if the codebook wants an ``initial_std``.

        Args:
            batches: Training batches of this rank from the first one on.
        """
        latents: list[Tensor] = []
        wanted = LATENTS_PER_CODE * self.tokenizer.vocab_size
        self.tokenizer.eval()
        for number, batch in enumerate(batches, start=1):
            samples = self.tokenizer.to_images(batch.samples.to(self.device), self.settings.dtype)
            with self.trainer.precision_plugin.forward_context():
                z = self.tokenizer.latents(samples)
            latents.append(distributed.all_gather(z.to(self.settings.dtype)))
            steps, within = divmod(number, self.settings.accumulate)
            have = sum(z.numel() // z.shape[1] for z in latents)
            if within == 0 and (have >= wanted or steps == MAX_INITIAL_STEPS):
                break
        self.train_tokenizer()
        codebook, projection = self.tokenizer.codebook, self.tokenizer.project_in
        z = torch.cat(latents)
        if codebook.initial_std is not None:
            z = projection.standardize(z, codebook.initial_std, whiten=codebook.initial_whitening)
        seed_torch(self.seed, "initialize")
        codebook.initialize(z)
        # Sums on a GPU depend on their order, which may differ between ranks.
        for part in (codebook, projection):
            for tensor in part.state_dict().values():
                distributed.from_first_rank(tensor)

    def begin_average(self) -> None:
        """Start the average of the weights at the current weights."""
        self.has_begun = True
        if self.settings.ema_decay:
            self.average = WeightAverage(
                self.tokenizer,
                decay=self.settings.ema_decay,
                fixed=self.frozen.names,
                device=self.settings.ema_device,
            )
