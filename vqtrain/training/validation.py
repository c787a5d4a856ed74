"""Validation: every held-out image once, with the averaged weights, over any number of ranks."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float64
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from vqtrain import distributed
from vqtrain.data.loading.loaders import Loader
from vqtrain.metrics.codebook import IdCounts
from vqtrain.metrics.fid import FID
from vqtrain.metrics.image import psnr, ssim
from vqtrain.ops.pixels import to_pixels
from vqtrain.training.bad_samples import BadSamples
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.settings import LOWER_IS_BETTER

Measure = Callable[[Tensor, Tensor], Tensor]

MEASURES: dict[str, Measure] = {"psnr": psnr, "ssim": ssim}
MAX_PICTURES = 8


@final
class Validation:
    """Measures reconstructions every ``trainer.validate_every`` steps, and at the last one.

    Args:
        data: The data of the run.
        measures: By name, what is measured of each image: takes reconstructions and originals as
            uint8, gives a float64 for each.
        fid: The distance between all reconstructions and all originals, or None.
        best: The name by which ``best.ckpt`` is chosen, of a measure or ``fid``.
        pictures: Folder for pictures of originals above reconstructions.
        bad_samples: Is told of images that cannot be read; they count for nothing.

    Attributes:
        results: What the validation at the step that has just ended measured; empty without one.
    """

    def __init__(
        self,
        *,
        data: TrainingData,
        measures: Mapping[str, Measure],
        fid: FID | None,
        best: str,
        pictures: Path,
        bad_samples: BadSamples,
    ) -> None:
        self.data, self.measures, self.fid = data, measures, fid
        self.best, self.pictures, self.bad_samples = best, pictures, bad_samples
        self.loader: Loader | None = None
        self.results: dict[str, float] = {}

    def measure_if_due(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Validate if this step is due; collective."""
        is_last = module.step >= module.settings.max_steps
        is_due = module.step % module.settings.validate_every == 0
        self.results = self.measure(trainer, module) if is_due or is_last else {}

    @property
    def score(self) -> float | None:
        """The value of ``best`` with the sign that makes higher better; None if there is none."""
        key = "val/rfid@" if self.best == "fid" else f"val/{self.best}"
        value = next((v for name, v in self.results.items() if name.startswith(key)), math.nan)
        score = -value if self.best in LOWER_IS_BETTER else value
        return score if math.isfinite(score) else None

    @torch.no_grad()
    def measure(self, trainer: Trainer, module: TokenizerTraining) -> dict[str, float]:
        """Run over the validation images; collective."""
        if self.loader is None:
            self.loader = self.data.validation_batches()  # ranks are known by now
        tokenizer = module.tokenizer
        rows: list[Tensor] = []
        codebook = tokenizer.codebook
        used = IdCounts(num_codebooks=codebook.num_codebooks, size=codebook.size)
        tokenizer.eval()
        with module.averaged_weights():
            for number, loaded in enumerate(self.loader):
                self.bad_samples.note("val", loaded)
                batch = loaded.to(module.device)
                images = tokenizer.to_images(batch.samples, module.settings.dtype)
                with trainer.precision_plugin.forward_context():
                    output = tokenizer(images)
                # In 8 bits whatever the range of the files is, so that numbers can be compared.
                original, made = to_pixels(images), to_pixels(output.samples)
                values = [measure(made, original) for measure in self.measures.values()]
                rows.append(torch.stack([*values, batch.mask.double()], 1))
                used.add(output.quantized.token_ids[batch.mask])
                if self.fid is not None:
                    self.fid.add(made, original, batch.mask)
                if number == 0 and distributed.rank() == 0:
                    self.save_pictures(original[batch.mask], made[batch.mask], module.step)
        tokenizer.train()
        used.reduce()
        means = mean_of(distributed.all_gather(torch.cat(rows)))
        results = {f"val/{name}": mean for name, mean in zip(self.measures, means, strict=True)}
        if self.fid is not None:
            distance, count = self.fid.compute()
            self.fid.clear()
            # It depends on how many images there are, so no number without it.
            results[f"val/rfid@{count}"] = distance
        return results | {f"val/codebook/{name}": v for name, v in used.metrics().items()}

    def picture_at(self, step: int) -> Path:
        """Return where the pictures of a step are."""
        return self.pictures / f"step_{step:08d}.png"

    def save_pictures(self, originals: Tensor, reconstructions: Tensor, step: int) -> None:
        """Write originals above reconstructions, at most ``MAX_PICTURES`` side by side."""
        count = min(MAX_PICTURES, len(originals))
        rows = torch.stack([originals[:count], reconstructions[:count]])
        picture = rearrange(rows, "row b c h w -> (row h) (b w) c").cpu().numpy()
        if picture.shape[2] != 3:
            picture = picture[:, :, 0]  # of many channels the first one
        self.pictures.mkdir(exist_ok=True)
        Image.fromarray(picture).save(self.picture_at(step))


def mean_of(rows: Float64[Tensor, " n columns"]) -> list[float]:
    """Average columns over the rows whose last value is not 0; NaN if there is none.

    Sums are rounded once, so that they do not depend on which rank had which rows.
    """
    counted = rows[rows[:, -1] != 0][:, :-1]
    columns = counted.T.tolist()
    return [math.fsum(column) / len(column) if column else math.nan for column in columns]
