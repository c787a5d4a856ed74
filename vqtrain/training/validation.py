"""Validation: every held-out sample once, with the averaged weights, over any number of ranks."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from vqtrain import distributed
from vqtrain.data.loading.batches import Batch
from vqtrain.drawing.panels import in_rows
from vqtrain.evaluation.comparison import OWN, Clock, Comparison
from vqtrain.losses.alignment.base import Embeddings, TextAlignment
from vqtrain.metrics.base import Metric, TextMetric
from vqtrain.metrics.parts.codebook_usage import IdCounts
from vqtrain.metrics.parts.moments import Moments
from vqtrain.ops.pixels import to_pixels
from vqtrain.tokenizer.rate import rate_in
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.color import ColorHint
from vqtrain.training.data_module import SampleData, TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.trained import Trained, Validator


@final
class Pairs:
    """Images and texts of the validation samples in a space of both.

    Attributes:
        images: Of length 1.
        texts: Of length 1.
        words: The texts themselves.
    """

    images: Float[Tensor, "n dim"]
    texts: Float[Tensor, "n dim"]

    def __init__(self) -> None:
        self.words: list[str] = []
        self._rows: list[Tensor] = []

    def add(self, embeddings: Embeddings, batch: Batch) -> None:
        """Add a batch, of the same size as every other; padding is left out later."""
        mask = batch.mask[:, None].to(embeddings.images.dtype)
        self._rows.append(torch.cat([mask, embeddings.images, embeddings.texts], dim=1))
        self.words += batch.texts

    def gather(self) -> None:
        """Join those of all ranks; collective."""
        rows = distributed.all_gather(torch.cat(self._rows))
        counts = (rows[:, 0] != 0).tolist()
        words = distributed.all_gather_lists(self.words)
        self.words = [word for word, is_counted in zip(words, counts, strict=True) if is_counted]
        self.images, self.texts = rows[rows[:, 0] != 0][:, 1:].chunk(2, dim=1)


@final
class Validation(Validator):
    """Compares reconstructions every ``trainer.validate_every`` steps, and at the last one.

    Args:
        data: The data of the run.
        metrics: With their weights, on the device of the run.
        best: The one by which ``best.ckpt`` is chosen.
        images: Folder for pictures of originals above reconstructions.
        bad_samples: Collects samples that cannot be read; they count for nothing. None where data
            has none.
    """

    def __init__(
        self,
        *,
        data: SampleData,
        metrics: Sequence[Metric],
        best: Metric,
        images: Path,
        bad_samples: BadSamples | None,
    ) -> None:
        super().__init__()
        self.data, self.metrics, self.best = data, metrics, best
        self.images, self.bad_samples = images, bad_samples
        self.loader: Iterable[Batch] | None = None
        self.originals: dict[str, Moments] = {}
        self.color = ColorHint()

    @property
    def score(self) -> float | None:
        """The value of ``best`` with the sign that makes higher better; None if there is none."""
        own = f"val/{self.best.name}"
        found = (v for name, v in self.results.items() if name.partition("@")[0] == own)
        value = next(found, math.nan)
        score = value if self.best.higher_is_better else -value
        return score if math.isfinite(score) else None

    @torch.no_grad()
    def measure(self, trainer: Trainer, module: Trained) -> dict[str, float]:
        """Run over the validation samples; collective."""
        assert isinstance(module, TokenizerTraining)
        if self.loader is None:
            self.loader = self.data.validation_batches()  # ranks are known by now
        tokenizer, codebook = module.tokenizer, module.tokenizer.codebook
        used = IdCounts(num_codebooks=codebook.num_codebooks, size=codebook.size)
        comparison = Comparison(
            self.metrics, known=self.originals, clock=Clock(None), device=module.device
        )
        of_texts = [metric for metric in self.metrics if isinstance(metric, TextMetric)]
        pairs = Pairs()
        tokenizer.eval()
        with module.averaged_weights():
            for number, loaded in enumerate(self.loader):
                if self.bad_samples is not None:
                    self.bad_samples.note("val", loaded)
                batch = loaded.to(module.device)
                samples = tokenizer.to_images(batch.samples, module.settings.dtype)
                with trainer.precision_plugin.forward_context():
                    output = tokenizer(samples)
                comparison.add(samples, output.samples, batch.mask, {})
                used.add(output.quantized.token_ids[batch.mask])
                if of_texts:
                    alignment = module.objective.alignment
                    assert isinstance(alignment, TextAlignment), "checked before the run"
                    pairs.add(alignment.embed(output.quantized.z_q, batch.texts), batch)
                if number == 0 and distributed.rank() == 0 and bool(batch.mask.any()):
                    shown = samples[batch.mask], output.samples[batch.mask]
                    self.save_images(*shown, module.step)
                    self.hint = self.color.of(*map(to_pixels, reversed(shown)))
        module.train_tokenizer()
        used.reduce()
        _, results = comparison.gather()
        self.originals = comparison.originals
        values = dict(results[OWN].metrics)
        if of_texts:
            pairs.gather()
            for metric in of_texts:
                values |= metric.values(pairs.images, pairs.texts, pairs.words)
        found = {f"val/{name}": value for name, value in values.items()}
        return found | {f"val/codebook/{name}": v for name, v in used.metrics().items()}

    def picture_at(self, step: int) -> Path:
        """Return where the images of a step are."""
        return self.images / f"step_{step:08d}.png"

    def save_images(
        self,
        originals: Float[Tensor, "b c *size"],
        reconstructions: Float[Tensor, "b c *size"],
        step: int,
    ) -> None:
        """Draw originals above reconstructions, both in [-1, 1]."""
        summary = self.data.summary if isinstance(self.data, TrainingData) else {}
        picture = in_rows(originals, reconstructions, rate=rate_in(summary))
        self.images.mkdir(exist_ok=True)
        Image.fromarray(picture).save(self.picture_at(step))
