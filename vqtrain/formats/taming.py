"""Checkpoints of taming-transformers: the VQGAN and its Gumbel variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import yaml
from jaxtyping import Float, Shaped
from torch import Tensor

from vqtrain.codebooks.gumbel import Gumbel
from vqtrain.errors import require
from vqtrain.formats.base import Converter, Exporter
from vqtrain.formats.parts.agreement import Agreement
from vqtrain.formats.parts.cnn import PROJECTIONS, TABLE, about, drop, part
from vqtrain.formats.parts.loading import unload
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.taming import (
    GUMBEL_NAMES,
    as_convolution,
    from_weights,
)
from vqtrain.formats.parts.writing import (
    check_nearest,
    checkpoint_in,
    compare_again,
    published_arguments,
    with_table,
    write_checkpoint,
)
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.storage import write_whole

OWNER = "taming-transformers' VQModel"
# Names as of a run there.
WEIGHTS_FILE, CONFIG_FILE = "last.ckpt", "model.yaml"
# Px of the latents' side where no size of images is known.
SIDE = 16


@final
class Taming(Converter, Exporter):
    """A VQGAN or Gumbel VQGAN of taming-transformers, in a ``.ckpt`` file.

    A model of that project with a transformer holds such a network too, which is taken out of it.
    What is exported has no losses: a config beside it builds its model without any.

    Args:
        legacy: The codebook's loss weighs commitment 1 and codes 0.25, as that code does by
            default; false exchanges the weights. It is not in the file.

    References:
        Esser et al. 2021, arXiv:2012.09841; taming-transformers, modules/vqvae/quantize.py.
        Deviation: with a remap file, tokens whose nearest code is not in use get the nearest one
        that is, not a random one.
    """

    def __init__(self, *, legacy: bool = True) -> None:
        self.legacy = legacy

    def convert(self, path: Path) -> Tokenizer:
        """Convert it, without its transformer and its losses."""
        file = checkpoint_in(path, ".ckpt")
        weights = drop(part(read_weights(file), "first_stage_model."), "loss.", "colorize")
        with about(path):
            return from_weights(weights, legacy=self.legacy)

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse what its ``VQModel`` and ``GumbelVQ`` cannot be."""
        to_theirs(tokenizer, published_arguments(tokenizer, OWNER)["latent_channels"])

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write weights and a config for its ``VQModel`` or ``GumbelVQ``; read them again."""
        network = published_arguments(tokenizer, OWNER)
        weights = to_theirs(tokenizer, network["latent_channels"])
        config = yaml.safe_dump({"model": model_config(tokenizer, network)}, sort_keys=False)
        write_whole(out / CONFIG_FILE, lambda file: file.write(config.encode()))
        write_checkpoint(tokenizer, out / WEIGHTS_FILE, {"state_dict": weights})
        return compare_again(tokenizer, self.convert(out / WEIGHTS_FILE), images)

    def example(self, out: Path) -> str:
        """Return lines of Python that load the file, in a copy of taming-transformers."""
        config, file = (str(out.absolute() / name) for name in (CONFIG_FILE, WEIGHTS_FILE))
        return "\n".join(
            (
                "import torch",
                "from main import instantiate_from_config",
                "from omegaconf import OmegaConf",
                f"config = OmegaConf.load({config!r})",
                "model = instantiate_from_config(config.model)",
                f"checkpoint = torch.load({file!r}, map_location='cpu')",
                "model.load_state_dict(checkpoint['state_dict'])  # strict=False with a loss",
            )
        )


def to_theirs(tokenizer: Tokenizer, latent_channels: int) -> dict[str, Shaped[Tensor, "..."]]:
    """Return the weights by the names that they have there.

    Raises:
        ConfigError: If it is another codebook, or a Gumbel codebook of another width than latents.
    """
    codebook, own = tokenizer.codebook, with_table(tokenizer)
    if not isinstance(codebook, Gumbel):
        check_nearest(codebook, OWNER, tokenizer.specification["codebook"])
        return unload(own, [*PROJECTIONS, *TABLE])
    require(
        codebook.in_channels == codebook.dim == latent_channels,
        "taming-transformers' GumbelVQ has codes of as many channels as latents: codebook.dim and "
        f"latent_dim must be {latent_channels}, got {codebook.dim} and {codebook.in_channels}",
    )
    scores = {f"codebook.scores.{k}": item for k, item in codebook.scores.state_dict().items()}
    return unload(as_convolution({**own, **scores}), [*PROJECTIONS, *GUMBEL_NAMES])


def model_config(tokenizer: Tokenizer, network: Mapping[str, Any]) -> dict[str, object]:
    """Describe a model without losses, as the project's configs do.

    There, attention is placed by the side of the grid, at the size of the training.
    """
    levels, codebook = len(network["multipliers"]), tokenizer.codebook
    size, unit = tokenizer.training_summary.get("image_size"), 2 ** (levels - 1)
    resolution = size if isinstance(size, int) and size % unit == 0 else SIDE * unit
    parameters: dict[str, object] = {
        "embed_dim": codebook.dim,
        "n_embed": codebook.size,
        "ddconfig": {
            "double_z": False,
            "z_channels": network["latent_channels"],
            "resolution": resolution,
            "in_channels": tokenizer.channels,
            "out_ch": tokenizer.channels,
            "ch": network["channels"],
            "ch_mult": list(network["multipliers"]),
            "num_res_blocks": network["num_blocks"],
            "attn_resolutions": [resolution // factor for factor in network["attention_factors"]],
            "dropout": network["dropout"],
        },
        "lossconfig": {"target": "taming.modules.losses.DummyLoss"},
    }
    if not isinstance(codebook, Gumbel):
        return {"target": "taming.models.vqgan.VQModel", "params": parameters}
    temperature = float(codebook.temperature)  # where our training has left it
    parameters |= {
        "kl_weight": codebook.kl_weight,
        "temperature_scheduler_config": {
            "target": "taming.lr_scheduler.LambdaWarmUpCosineScheduler",
            "params": {
                "warm_up_steps": 0,
                "max_decay_steps": 1,
                **dict.fromkeys(("lr_start", "lr_max", "lr_min"), temperature),
            },
        },
    }
    return {"target": "taming.models.vqgan.GumbelVQ", "params": parameters}
