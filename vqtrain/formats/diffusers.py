"""diffusers' ``VQModel``, both ways."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Int64, Shaped
from safetensors.torch import save as to_safetensors
from torch import Tensor

from vqtrain.build import bind
from vqtrain.errors import CheckpointError, ConfigError, require
from vqtrain.formats.base import Converter, Exporter
from vqtrain.formats.parts.agreement import Agreement, Tolerance, compare
from vqtrain.formats.parts.diffusers import (
    Settings,
    is_shared,
    settings_of,
    their_name,
    to_theirs,
    with_current_names,
)
from vqtrain.formats.parts.pickles import read_weights
from vqtrain.formats.parts.preprocess import write_preprocess
from vqtrain.tokenizer.checks import differences
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.storage import write_whole

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
# Before safetensors.
OLD_WEIGHTS_FILE = "diffusion_pytorch_model.bin"
CLASS = "VQModel"
# Modules whose differences are listed; more only say that it is another network.
MAX_MODULES = 4


@final
class Diffusers(Exporter, Converter):
    """A directory of diffusers' ``VQModel``: ``cnn`` networks under other names, around a table.

    A table of normalized codes goes there as well: the code nearest to a latent is then the one
    nearest to its direction, since all codes are equally far from zero.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Read a ``VQModel``, with the loss that it is trained with there."""
        try:
            settings = read_settings(path / CONFIG_FILE)
            weights = read_current_weights(path)
            blocks, levels = settings.layers_per_block, len(settings.block_out_channels)
            require(
                blocks <= len(weights),
                f"layers_per_block is {blocks}, more than there are weights ({len(weights)})",
            )
            with torch.device("meta"):  # shapes come first: a wrong one could be of any size
                expected = settings.build().state_dict()
        except (ConfigError, RuntimeError) as error:  # torch's, where a size overflows
            raise ConfigError(f"cannot convert {path}: {error}") from error
        check_same(weights, to_theirs(expected, levels), path)
        tokenizer = settings.build()
        own = tokenizer.state_dict()
        for name, tensor in own.items():
            if is_shared(name):
                own[name] = weights[their_name(name, levels)].reshape(tensor.shape).float()
        tokenizer.load_weights(own)
        return tokenizer.eval()

    def export(
        self, tokenizer: Tokenizer, out: Path, *, images: Sequence[Float[Tensor, "_ c *_"]]
    ) -> Agreement:
        """Write a directory for ``VQModel.from_pretrained``, load it with that, and compare."""
        settings = settings_of(tokenizer)
        if find_spec("diffusers") is None:
            raise ConfigError(
                "format=diffusers is checked with diffusers' own class: pip install diffusers"
            )
        known = {name: value for name, value in asdict(settings).items() if value is not None}
        text = json.dumps({"_class_name": CLASS, **known}, indent=2)
        weights = {**tokenizer.state_dict(), "codebook.vectors": tokenizer.codebook_vectors}
        theirs = to_theirs(weights, len(settings.block_out_channels))
        content = to_safetensors(
            {name: tensor.float().contiguous() for name, tensor in theirs.items()}, {"format": "pt"}
        )
        write_whole(out / CONFIG_FILE, lambda file: file.write(f"{text}\n".encode()))
        write_whole(out / WEIGHTS_FILE, lambda file: file.write(content))
        write_preprocess(tokenizer, out)
        return check(tokenizer, out, images)

    def example(self, out: Path) -> str:
        """Return lines of Python that load the directory."""
        return f"from diffusers import VQModel\nVQModel.from_pretrained({str(out)!r})"


def check(tokenizer: Tokenizer, out: Path, images: Sequence[Float[Tensor, "_ c *_"]]) -> Agreement:
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


def read_settings(file: Path) -> Settings:
    """Read ``config.json``.

    Raises:
        CheckpointError: If it cannot be read, or is of another class.
        ConfigError: If it has settings that are not known, or that ``cnn`` networks cannot have.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name != CLASS:
        raise CheckpointError(f"cannot read {file}: its _class_name is {name!r}, not {CLASS!r}")
    known = {key: value for key, value in config.items() if not key.startswith("_")}
    return bind(Settings, known, where=CONFIG_FILE)


def read_current_weights(path: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Read the weights in a directory, with attention named as it is now.

    Raises:
        CheckpointError: If there are none, or they cannot be read.
    """
    files = [path / name for name in (WEIGHTS_FILE, OLD_WEIGHTS_FILE) if (path / name).is_file()]
    if not files:
        raise CheckpointError(
            f"no weights in {path}: looked for {WEIGHTS_FILE} and {OLD_WEIGHTS_FILE}"
        )
    return with_current_names(read_weights(files[0]))


def check_same(
    weights: Mapping[str, Shaped[Tensor, "..."]],
    wanted: Mapping[str, Shaped[Tensor, "..."]],
    path: Path,
) -> None:
    """Refuse weights of other names or shapes than wanted, and list them by module."""
    modules = defaultdict(list)
    for difference in differences(weights, wanted):
        name, _, wrong = difference.partition(" ")
        module, _, parameter = name.rpartition(".")
        modules[module].append(f"{parameter} {wrong}")
    if modules:
        listed = [f"{module}: {', '.join(wrong)}" for module, wrong in modules.items()]
        more = f"; and in {len(listed) - MAX_MODULES} more" if len(listed) > MAX_MODULES else ""
        raise CheckpointError(
            f"the weights in {path} are not those of its {CONFIG_FILE}: "
            f"{'; '.join(listed[:MAX_MODULES])}{more}"
        )
