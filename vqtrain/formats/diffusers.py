"""diffusers' ``VQModel``, both ways."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import final

from jaxtyping import Float, Int64
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import require
from vqtrain.formats.base import Converter, Exporter
from vqtrain.formats.parts.agreement import Agreement, Tolerance, compare
from vqtrain.formats.parts.diffusers import (
    DOWN,
    UP,
    WEIGHTS_FILE,
    CNNSettings,
    groups_of,
    load,
    their_name,
)
from vqtrain.formats.parts.preprocess import write_preprocess
from vqtrain.formats.parts.writing import CONFIG_FILE, check_nearest, cnn_arguments, write_json
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.storage import write_whole

CLASS = "VQModel"


@dataclass(frozen=True, kw_only=True)
class VQSettings(CNNSettings):
    """What a ``VQModel`` says; ``lookup_from_codebook`` changes neither ids nor images."""

    latent_channels: int = 3
    num_vq_embeddings: int = 256
    vq_embed_dim: int | None = None
    norm_type: str = "group"
    lookup_from_codebook: bool = False

    def __post_init__(self) -> None:
        """Refuse networks that ours cannot be."""
        self.check("norm_type", self.norm_type == "group", "group")
        super().__post_init__()

    def build(self) -> Tokenizer:
        """Build a tokenizer, with weights that are still to be loaded."""
        # VQModel multiplies the term that moves codes, not the one that moves latents, by 0.25.
        codebook = {
            **PLAIN,
            "size": self.num_vq_embeddings,
            "dim": self.latent_channels if self.vq_embed_dim is None else self.vq_embed_dim,
            "codebook_weight": 0.25,
            "commitment_weight": 1.0,
            "gradient": "straight_through",
        }
        return self.tokenizer(
            "vq", codebook, moments=self.latent_channels, latents=self.latent_channels
        )

    def their_name(self, name: str) -> str | None:
        """Return their name of a weight of ours; they have no counts of a codebook."""
        is_shared = name == "codebook.vectors" or not name.startswith("codebook.")
        return their_name(name, len(self.block_out_channels)) if is_shared else None


@final
class Diffusers(Exporter, Converter):
    """A directory of diffusers' ``VQModel``: ``cnn`` networks under other names, around a table.

    A table of normalized codes goes there as well: the code nearest to a latent is then the one
    nearest to its direction, since all codes are equally far from zero.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Read a ``VQModel``, with the loss that it is trained with there."""
        return load(path, CLASS, VQSettings)[1]

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse what ``VQModel`` cannot be, and to write what cannot be loaded here."""
        settings_of(tokenizer)
        require(
            find_spec("diffusers") is not None,
            "format=diffusers is checked with diffusers' own class: pip install diffusers",
        )

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write a directory for ``VQModel.from_pretrained``, load it with that, and compare."""
        self.check(tokenizer)
        settings = settings_of(tokenizer)
        known = {name: value for name, value in asdict(settings).items() if value is not None}
        weights = {**tokenizer.state_dict(), "codebook.vectors": tokenizer.codebook_vectors}
        theirs = settings.theirs(weights)
        content = to_safetensors(
            {name: tensor.float().contiguous() for name, tensor in theirs.items()}, {"format": "pt"}
        )
        write_json(out / CONFIG_FILE, {"_class_name": CLASS, **known})
        write_whole(out / WEIGHTS_FILE, lambda file: file.write(content))
        write_preprocess(tokenizer, out)
        return loaded_and_compared(tokenizer, out, images)

    def example(self, out: Path) -> str:
        """Return lines of Python that load the directory."""
        return f"from diffusers import VQModel\nVQModel.from_pretrained({str(out)!r})"


def loaded_and_compared(
    tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c *_"]]
) -> Agreement:
    """Load what was written with diffusers' own class, and compare it.

    Raises:
        VqtrainError: If it does not agree with the tokenizer.
    """
    from diffusers import VQModel  # seconds, for this alone

    # Otherwise it advises everyone who lacks accelerate to install it.
    options = {"local_files_only": True, "low_cpu_mem_usage": False}
    model = VQModel.from_pretrained(str(out), **options).eval()  # type: ignore[no-untyped-call]

    def encode(images: Float[Tensor, "b c h w"]) -> Int64[Tensor, "b h_z w_z"]:
        latents = model.encode(images).latents
        token_ids: Tensor = model.quantize(latents)[2][2]
        return token_ids.reshape(len(latents), *latents.shape[2:])

    def decode(token_ids: Int64[Tensor, "b h_z w_z"]) -> Float[Tensor, "b c h w"]:
        shape = (*token_ids.shape, tokenizer.codebook.dim)
        return model.decode(token_ids, force_not_quantize=True, shape=shape).sample.clamp(-1, 1)

    return compare(tokenizer, images, encode=encode, decode=decode, tolerance=Tolerance())


def settings_of(tokenizer: Tokenizer) -> VQSettings:
    """Say what a tokenizer is as a ``VQModel``.

    Raises:
        ConfigError: If it cannot be one.
    """
    owner = "diffusers' VQModel"
    encoder, decoder = cnn_arguments(
        tokenizer, owner, same=("channels", "multipliers", "num_blocks", "latent_channels")
    )
    check_nearest(tokenizer.codebook, owner, tokenizer.specification["codebook"])
    multipliers = encoder["multipliers"]
    require(
        multipliers[0] == 1,
        "the first level of diffusers' VQModel is as wide as its first layer: multipliers must "
        f"begin with 1, got {multipliers}",
    )
    widths = [encoder["channels"] * multiplier for multiplier in multipliers]
    groups = groups_of(widths)
    require(
        len(groups) == 1,
        f"diffusers' VQModel has one number of groups for all norms, but levels of {widths} "
        f"channels have {groups}: 32 must divide all, or the groups be equal",
    )
    levels = range(len(multipliers))
    size = tokenizer.training_summary.get("image_size")
    return VQSettings(
        in_channels=encoder["in_channels"],
        out_channels=decoder["out_channels"],
        down_block_types=[DOWN[2**i in encoder["attention_factors"]] for i in levels],
        up_block_types=[UP[2**i in decoder["attention_factors"]] for i in reversed(levels)],
        block_out_channels=widths,
        layers_per_block=encoder["num_blocks"],
        latent_channels=encoder["latent_channels"],
        sample_size=size if isinstance(size, int) else None,
        num_vq_embeddings=tokenizer.vocab_size,
        norm_num_groups=groups[0],
        vq_embed_dim=tokenizer.codebook.dim,
        lookup_from_codebook=True,  # so that decode(ids, force_not_quantize=True, ...) takes ids
    )
