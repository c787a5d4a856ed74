"""Validation: every held-out image once, with the averaged weights, over any number of ranks."""

from contextlib import nullcontext
from pathlib import Path
from typing import final

import torch
from einops import rearrange
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from vqtrain import distributed
from vqtrain.data.loaders import Loader
from vqtrain.metrics.codebook import perplexity, usage
from vqtrain.metrics.image import psnr, ssim
from vqtrain.ops.pixels import to_images, to_pixels
from vqtrain.training.callbacks import StepCallback
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.settings import MetricsSettings
from vqtrain.training.window import histogram_of

IMAGE_METRICS = {"psnr": psnr, "ssim": ssim}
MAX_PICTURES = 8


@final
class Validation(StepCallback):
    """Measures reconstructions every ``trainer.validate_every`` steps, and at the last one.

    Args:
        loader: Batches of this rank; all ranks have equally many.
        settings: The ``metrics`` group.
        pictures: Folder for pictures of originals above reconstructions.

    Attributes:
        results: What the validation at the step that has just ended measured; empty without one.
    """

    def __init__(self, *, loader: Loader, settings: MetricsSettings, pictures: Path) -> None:
        self.loader, self.settings, self.pictures = loader, settings, pictures
        self.results: dict[str, float] = {}

    def on_step_end(self, trainer: Trainer, module: TokenizerTraining) -> None:
        """Validate if this step is due."""
        is_last = module.step >= module.settings.max_steps
        is_due = module.step % module.settings.validate_every == 0
        self.results = self.measure(trainer, module) if is_due or is_last else {}

    @torch.no_grad()
    def measure(self, trainer: Trainer, module: TokenizerTraining) -> dict[str, float]:
        """Run over the validation images; collective."""
        tokenizer = module.tokenizer
        names = list(self.settings.images)
        sums = torch.zeros(len(names) + 1, dtype=torch.float64, device=module.device)
        size, k = tokenizer.vocab_size, tokenizer.codebook.num_codebooks
        histogram = torch.zeros(k, size, dtype=torch.int64, device=module.device)
        averaged = module.average.applied_to(tokenizer) if module.average else nullcontext()
        tokenizer.eval()
        with averaged:
            for number, loaded in enumerate(self.loader):
                batch = loaded.to(module.device)
                with trainer.precision_plugin.forward_context():
                    output = tokenizer(to_images(batch.images, module.settings.dtype))
                reconstructions = to_pixels(output.images)
                values = [IMAGE_METRICS[name](reconstructions, batch.images) for name in names]
                values.append(torch.ones_like(batch.mask, dtype=torch.float64))
                sums += torch.stack(values)[:, batch.mask].sum(1)
                histogram += histogram_of(output.quantized.token_ids[batch.mask], size)
                if number == 0 and distributed.rank() == 0:
                    self.save_pictures(batch.images[batch.mask], reconstructions, module.step)
        tokenizer.train()
        sums = distributed.all_reduce_sum(sums)
        histogram = distributed.all_reduce_sum(histogram)
        means = (sums[:-1] / sums[-1]).tolist()
        results = {f"val/{name}": mean for name, mean in zip(names, means, strict=True)}
        results["val/codebook/usage"] = usage(histogram).item()
        results["val/codebook/perplexity"] = perplexity(histogram).item()
        return results

    def save_pictures(self, originals: Tensor, reconstructions: Tensor, step: int) -> None:
        """Write originals above reconstructions, at most ``MAX_PICTURES`` side by side."""
        count = min(MAX_PICTURES, len(originals))
        rows = torch.stack([originals[:count], reconstructions[:count]])
        picture = rearrange(rows, "row b c h w -> (row h) (b w) c").cpu().numpy()
        if picture.shape[2] == 1:
            picture = picture[:, :, 0]
        self.pictures.mkdir(exist_ok=True)
        Image.fromarray(picture).save(self.pictures / f"step_{step:08d}.png")
