"""Tokenizers on disk: written completely or not at all, and read without running their code."""

import json
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NotRequired, TypedDict, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from vqtrain.codebooks.base import Codebook
from vqtrain.errors import CheckpointError
from vqtrain.ops.paths import expand
from vqtrain.ops.pixels import UINT8_RANGE, ValueRange
from vqtrain.ranges import nearest
from vqtrain.tokenizer.migrations import FORMAT_VERSION, migrated
from vqtrain.tokenizer.parts import PARTS
from vqtrain.version import __version__

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
# Of a model of transformers: what its configuration and its weights call the tokenizer.
INNER = "tokenizer"


class ImageConfig(TypedDict):
    """The format of a tokenizer's images and pixels.

    ``pixels`` are the values of black and white, ``pixel_type`` is uint8 or float32. The oldest
    files lack both and mean uint8.
    """

    channels: int
    range: list[float]
    pixels: NotRequired[list[float]]
    pixel_type: NotRequired[str]


class TokenizerConfig(TypedDict):
    """The keys of ``config.json`` that are needed to build a tokenizer."""

    encoder: dict[str, object]
    codebook: dict[str, object]
    decoder: dict[str, object]
    image: ImageConfig
    training: dict[str, object]


def write(directory: Path, config: Mapping[str, object], weights: Mapping[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors`` into a directory.

    The configuration is also in the header of the weights, so that this one file is enough.

    Raises:
        CheckpointError: If they cannot be written; existing files stay intact.
    """
    text = json.dumps(stamped(config), indent=2)
    content = to_safetensors(
        {name: tensor.contiguous() for name, tensor in weights.items()}, {"config": text}
    )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(directory / WEIGHTS_FILE, lambda file: file.write(content))
        write_whole(directory / CONFIG_FILE, lambda file: file.write(f"{text}\n".encode()))
    except OSError as error:
        raise CheckpointError(f"cannot write the tokenizer to {directory}: {error}") from error


def image_config(channels: int, pixel_range: ValueRange | None) -> ImageConfig:
    """Describe a tokenizer's images; ``pixel_range`` is the inverse."""
    return {
        "channels": channels,
        "range": [-1.0, 1.0],
        "pixels": list(pixel_range or UINT8_RANGE),
        "pixel_type": "float32" if pixel_range else "uint8",
    }


def pixel_range(image: ImageConfig) -> ValueRange | None:
    """Read the values of black and white, or None for uint8 pixels of 0..255."""
    if image.get("pixel_type", "uint8") == "uint8":
        return None
    black, white = image["pixels"]
    return float(black), float(white)


def token_config(codebook: Codebook) -> dict[str, object]:
    """Describe token ids, as ``config.json`` does."""
    return {
        "vocab_size": codebook.size,
        "num_codebooks": codebook.num_codebooks,
        "grids": [list(grid) for grid in codebook.token_grids],
        "id_order": codebook.id_order,
        "selection_rule": codebook.selection_rule,
    }


def stamped(config: Mapping[str, object]) -> dict[str, object]:
    """Add the format version to a tokenizer's configuration."""
    return {"format_version": FORMAT_VERSION, "vqtrain_version": __version__, **config}


def write_whole(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a temporary file next to the target, flush it to the disk, and move it into place.

    After a failure an existing file at ``path`` is intact, and the temporary file is removed.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp creates files that only their owner can read
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read(path: str, *, allow: Sequence[str]) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Read a tokenizer's configuration and weights; see ``Tokenizer.from_pretrained``.

    Raises:
        CheckpointError: If there is none, it is damaged or of another version, or it names a class
            that is not allowed.
    """
    if path.startswith("hf://"):
        path = download(path.removeprefix("hf://"))
    location = expand(path)
    for directory in (location, location / "tokenizer"):
        if (directory / CONFIG_FILE).is_file():
            return read_directory(directory, allow)
    if location.is_file():
        tokenizer = read_checkpoint(location)["tokenizer"]
        return current(tokenizer["config"], tokenizer["weights"], str(location), allow)
    what = f"looked for {CONFIG_FILE} there and in its folder tokenizer/"
    if not location.exists():
        what = "there is no such file or directory"
    raise CheckpointError(f"no tokenizer at {path}: {what}{suggestion(location)}")


def suggestion(location: Path) -> str:
    """Name the tokenizer that may be meant: the latest run of a name, or a folder spelt like it."""
    wrong = location  # the first part that does not exist
    while not wrong.exists() and not wrong.parent.exists():
        wrong = wrong.parent
    siblings: list[str] = []
    with suppress(OSError):
        siblings = [each.name for each in wrong.parent.iterdir()]
    near = nearest(wrong.name, siblings) if not wrong.exists() else None
    meant = [wrong.parent / near / location.relative_to(wrong)] if near else []
    for place in (location, *meant):
        for found in (place, place / "latest"):
            if found != location and is_tokenizer(found):
                return f", did you mean {found}?"
    return ""


def is_tokenizer(directory: Path) -> bool:
    """Say whether a directory is that of a tokenizer, or of a run that has one."""
    return any((each / CONFIG_FILE).is_file() for each in (directory, directory / "tokenizer"))


def download(repository: str) -> str:
    """Download a tokenizer from the Hugging Face hub into its cache, and return the folder."""
    from huggingface_hub import snapshot_download  # takes nearly half a second to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return snapshot_download(repository, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE])
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"cannot load hf://{repository}: {reason}") from error


def read_directory(
    directory: Path, allow: Sequence[str]
) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Read what ``write`` wrote, or ``vqtrain export format=transformers``."""
    file = directory / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {file}: {error}") from error
    weights_file = directory / WEIGHTS_FILE
    try:
        weights = load_file(weights_file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {weights_file}: {error}") from error
    return current(*unwrapped(config, weights), str(file), allow)


def unwrapped(config: object, weights: dict[str, Tensor]) -> tuple[object, dict[str, Tensor]]:
    """Take the tokenizer out of the model that ``format=transformers`` writes around it."""
    inner = config.get(INNER) if isinstance(config, dict) else None
    if not isinstance(inner, dict):
        return config, weights
    return inner, {name.removeprefix(f"{INNER}."): tensor for name, tensor in weights.items()}


def stored(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Leave buffers out that a model computes; those for transformers have them in their files."""
    computed = dict(model.named_buffers()).keys() - model.state_dict().keys()
    return {name: tensor for name, tensor in weights.items() if name not in computed}


class StoredTokenizer(TypedDict):
    """A tokenizer inside a checkpoint."""

    config: object
    weights: dict[str, Tensor]


class Checkpoint(TypedDict):
    """The part of a training checkpoint that is read here."""

    tokenizer: StoredTokenizer


def read_checkpoint(file: Path) -> Checkpoint:
    """Read the tokenizer of a checkpoint file.

    Raises:
        CheckpointError: If it is damaged, or not a checkpoint of a tokenizer.
    """
    checkpoint = read_plain(file)
    tokenizer = checkpoint.get("tokenizer")
    if not isinstance(tokenizer, dict) or not {"config", "weights"} <= tokenizer.keys():
        raise CheckpointError(
            f"cannot read {file}: it is not a checkpoint of vqtrain with a tokenizer"
        )
    return cast(Checkpoint, checkpoint)


def read_plain(file: Path, *, mmap: bool = False) -> dict[str, object]:
    """Read a checkpoint file: tensors and plain data, nothing that could run code.

    Args:
        file: The file.
        mmap: Whether tensors are read only where they are used, which is quick.

    Raises:
        CheckpointError: If it is damaged, or not a checkpoint of vqtrain.
    """
    # vqtrain never writes bare pickles, to whose reader torch would hand a file that is no zip.
    damaged = f"cannot read {file}: it is damaged, or not a checkpoint of vqtrain"
    if not zipfile.is_zipfile(file):
        raise CheckpointError(damaged)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(damaged) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"cannot read {file}: it is not a checkpoint of vqtrain")
    return checkpoint


def current(
    config: object, weights: dict[str, Tensor], source: str, allow: Sequence[str]
) -> tuple[TokenizerConfig, dict[str, Tensor]]:
    """Convert a tokenizer to this version's form, and refuse what is invalid or not allowed."""
    version = config.get("format_version") if isinstance(config, dict) else None
    if version is None:
        raise CheckpointError(
            f"cannot read {source}: it has no format_version, so it is no tokenizer of vqtrain"
        )
    if version not in range(1, FORMAT_VERSION + 1) or not isinstance(config, dict):
        raise CheckpointError(
            f"cannot read {source}: its format_version is {version!r}, this vqtrain "
            f"({__version__}) reads 1 to {FORMAT_VERSION}"
        )
    check(config, source, allow)
    config, weights = migrated(config, weights)
    return cast(TokenizerConfig, config), weights


def check(config: Mapping[str, Any], source: str, allow: Sequence[str]) -> None:
    """Refuse an invalid configuration, or one that names a class that is not allowed."""
    for key in (*PARTS, "image", "training"):
        if not isinstance(config.get(key), dict):
            raise CheckpointError(f"cannot read {source}: {key!r} must be a mapping")
    for part in PARTS:
        if not isinstance(config[part].get("arguments"), dict):
            raise CheckpointError(f"cannot read {source}: {part}.arguments must be a mapping")
    if not isinstance(config["image"].get("channels"), int):
        raise CheckpointError(f"cannot read {source}: image.channels must be a whole number")
    _check_pixels(config["image"], source)
    for part in PARTS:
        for kind in kinds_in(config[part]):
            package = package_of(kind)
            if package is not None and package not in allow:
                raise CheckpointError(
                    f"cannot read {source}: its {part} is {kind!r}, code outside vqtrain; if you "
                    f"trust it, add allow=[{package}]"
                )


def kinds_in(value: object) -> list[str]:
    """List every kind that a part names, including codebooks inside codebooks."""
    if isinstance(value, Mapping):
        own = [str(value["kind"])] if "kind" in value else []
        return own + [kind for inner in value.values() for kind in kinds_in(inner)]
    return [kind for inner in value for kind in kinds_in(inner)] if isinstance(value, list) else []


def package_of(kind: str) -> str | None:
    """Return the package outside vqtrain that holds the class of a kind; None of our own kinds."""
    return kind.partition(":")[0].partition(".")[0] if ":" in kind else None


def packages_in(config: Mapping[str, object]) -> list[str]:
    """List the packages outside vqtrain whose classes a tokenizer's parts name."""
    kinds = kinds_in([config[part] for part in PARTS])
    return sorted({package for kind in kinds if (package := package_of(kind)) is not None})


def _check_pixels(image: Mapping[str, object], source: str) -> None:
    pixel_type, pixels = image.get("pixel_type", "uint8"), image.get("pixels", list(UINT8_RANGE))
    if pixel_type not in ("uint8", "float32"):
        raise CheckpointError(
            f"cannot read {source}: image.pixel_type must be uint8 or float32, got {pixel_type!r}"
        )
    ends = pixels if isinstance(pixels, list) else []
    if len(ends) != 2 or any(type(end) not in (int, float) for end in ends):
        raise CheckpointError(
            f"cannot read {source}: image.pixels must be two numbers, black and white, "
            f"got {pixels!r}"
        )
