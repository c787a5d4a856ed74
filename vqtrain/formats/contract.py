"""What every format must do, as a check that any format can be put through."""

import tempfile
from pathlib import Path

import torch

from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import ConfigError, VqtrainError, require
from vqtrain.formats.base import Converter, Exporter, Format
from vqtrain.tokenizer.model import Tokenizer

SIZES = ((2, 3, 16, 16), (1, 3, 16, 12))


def check(format: Format) -> None:  # noqa: A002 - the field's word
    """Check that a format keeps its promises, on a small VQGAN.

    Args:
        format: As it is built.

    Raises:
        ConfigError: For the first promise that is not kept.
        VqtrainError: If what it exports does not agree with the tokenizer.
    """
    require(isinstance(format, Exporter | Converter), "a format is an Exporter or a Converter")
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(format, Exporter):
            _check_export(format, Path(folder))
        if isinstance(format, Converter):
            file = Path(folder, "text.ckpt")
            file.write_text("no checkpoint", encoding="utf-8")
            for path in (file, Path(folder, "nowhere")):
                _check_refusal(format, path)


def _check_export(exporter: Exporter, folder: Path) -> None:
    tokenizer, out = _small(), folder / "out"
    out.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = [torch.rand(size) * 2 - 1 for size in SIZES]
    agreement = exporter.export(tokenizer, out, images=images)
    require(
        agreement.images == sum(len(batch) for batch in images), "export must compare all images"
    )
    require(any(out.iterdir()), "export must write into the folder")
    try:
        compile(exporter.example(out), "example", "exec")
    except SyntaxError as error:
        raise ConfigError(f"example must be lines of Python: {error}") from error
    if isinstance(exporter, Converter):
        again = exporter.convert(out)
        is_same = all(torch.equal(again.encode(x), tokenizer.encode(x)) for x in images)
        require(is_same, "convert must give back the tokenizer that was exported")


def _check_refusal(converter: Converter, path: Path) -> None:
    try:
        converter.convert(path)
    except VqtrainError:
        return
    except Exception as error:
        raise ConfigError(
            f"convert must raise CheckpointError for what is no checkpoint, not {error!r}"
        ) from error
    raise ConfigError("convert must refuse what is no checkpoint")


def _small() -> Tokenizer:
    network = {
        "channels": 32,
        "multipliers": [1, 1],
        "num_blocks": 1,
        "attention_factors": [],
        "latent_channels": 4,
        "dropout": 0.0,
    }
    codebook = {
        **PLAIN,
        "size": 16,
        "dim": 4,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "gradient": "straight_through",
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tokenizer(
            encoder={"kind": "cnn", "arguments": {**network, "in_channels": 3}},
            codebook={"kind": "vq", "arguments": codebook},
            decoder={"kind": "cnn", "arguments": {**network, "out_channels": 3}},
            channels=3,
        ).eval()
