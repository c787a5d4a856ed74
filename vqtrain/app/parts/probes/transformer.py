"""The transformer of a probe: how large it is, where it is kept, and what it draws."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor

from vqtrain.app.parts.probes.folder import TRANSFORMER
from vqtrain.app.parts.probes.options import TransformerOptions
from vqtrain.codebooks.base import Codebook
from vqtrain.errors import CheckpointError
from vqtrain.evaluation.settings import SampleSettings
from vqtrain.generation.base import Condition, TokenModel
from vqtrain.generation.budget import Sizes, sizes_of
from vqtrain.generation.form import TokenForm
from vqtrain.generation.models import ModelSettings, build_model
from vqtrain.generation.sampling import Sampling
from vqtrain.ops.pixels import to_pixels
from vqtrain.ops.precision import widened
from vqtrain.ops.seeds import seed_for
from vqtrain.shapes import Pixels
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.model import Tokenizer

# Keys below ``transformer`` that a checkpoint does not hold, as its figures do not depend on them.
FREE: dict[str, Any] = {"accumulate": 1, "max_time": None}
CHECKPOINT = f"{TRANSFORMER}/checkpoints/best.ckpt"


def sizes_for(options: TransformerOptions) -> Sizes:
    """Return the sizes of the transformer: those that were typed, else those of the budget."""
    sizes = sizes_of(options.budget)
    return Sizes(depth=options.depth or sizes.depth, dim=options.dim or sizes.dim)


def build_transformer(
    form: TokenForm, options: TransformerOptions, condition: Condition, codebook: Codebook
) -> TokenModel:
    """Build the transformer, with random weights.

    Raises:
        ConfigError: If a size is impossible.
    """
    sizes = sizes_for(options)
    settings = ModelSettings(
        depth=sizes.depth, dim=sizes.dim, masked=options.masked, order=options.order
    )
    return build_model(form, settings, condition, codebook)


def read_model(folder: Path, tokenizer: Tokenizer, form: TokenForm) -> TokenModel:
    """Read the transformer that a probe has trained: its best validation.

    Args:
        folder: Of the probe of one tokenizer.
        tokenizer: The tokenizer.
        form: Of its ids.

    Raises:
        CheckpointError: If there is none, or it cannot be read.
    """
    file = folder / CHECKPOINT
    if not file.is_file():
        raise CheckpointError(
            f"{folder} holds no trained transformer: vqtrain probe writes one with "
            "probe=[transformer]"
        )
    checkpoint = cast(Any, storage.read_plain(file))
    config = checkpoint["config"]
    options = TransformerOptions(**config["transformer"], **FREE)
    condition = Condition(**config["condition"])
    model = build_transformer(form, options, condition, tokenizer.codebook)
    model.load_state_dict(checkpoint["model"])
    return model.eval()


@torch.inference_mode()
def draw(
    model: TokenModel,
    tokenizer: Tokenizer,
    conditions: Int64[Tensor, "n m"],
    sampling: Sampling,
    *,
    seed: int,
    settings: SampleSettings,
) -> Iterator[Pixels]:
    """Draw an image for each condition, in batches.

    Args:
        model: The transformer, on the device.
        tokenizer: That decodes its ids, on the device.
        conditions: Of each image; [n, 0] where there are none.
        sampling: How ids are drawn.
        seed: Of the draws.
        settings: On what all is computed; other batch sizes draw other images.
    """
    tokenizer, batch_size = settings.placed(tokenizer), settings.batch_size
    model = model.to(tokenizer.device, widened(tokenizer.dtype))
    for start in range(0, len(conditions), batch_size):
        generator = torch.Generator().manual_seed(seed_for(seed, "samples", start))
        part = conditions[start : start + batch_size].to(tokenizer.device)
        with settings.autocast():
            token_ids = model.sample(part, sampling, generator)
            yield to_pixels(tokenizer.decode(token_ids)).cpu()
