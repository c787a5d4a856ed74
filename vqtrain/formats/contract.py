"""What every format must do, as a check that any format can be put through."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import ConfigError, VqtrainError, require
from vqtrain.formats.base import Converter, Exporter, Format
from vqtrain.formats.parts.graphs import traced_size
from vqtrain.tokenizer.model import Tokenizer

SIZES = ((16, 16), (16, 12))


def check(format: Format) -> None:  # noqa: A002 - the field's word
    """Check that a format keeps its promises, on the first small VQGAN that it does not refuse.

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
    refusals = []
    for number, tokenizer in enumerate(_small()):
        out, size = folder / str(number), traced_size(tokenizer)
        out.mkdir()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            images = [torch.rand(2, 3, *each) * 2 - 1 for each in ([size] if size else SIZES)]
        try:
            agreement = exporter.export(tokenizer, out, images=images)
            break
        except ConfigError as refusal:
            refusals.append(refusal)
    else:
        raise refusals[0]
    count = sum(len(batch) for batch in images)
    require(agreement.images == count, "export must compare all images")
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


def _small() -> Iterator[Tokenizer]:
    """Make small VQGANs: the first has what most formats can have, the others are published."""
    network = {
        "channels": 32,
        "multipliers": [1, 1],
        "num_blocks": 1,
        "attention_factors": [],
        "latent_channels": 4,
        "dropout": 0.0,
    }
    vq = {
        **PLAIN,
        "dim": 4,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "gradient": "straight_through",
    }
    llamagen = {**network, "channels": 128, "num_blocks": 2, "attention_factors": [2]}
    var = {**network, "multipliers": [1, 1, 2, 2, 4], "num_blocks": 2, "attention_factors": [16]}
    scales = {
        "scales": [1, 2, 3, 4],
        "num_convolutions": 4,
        "convolution_share": 0.5,
        "convolution_weight": 1.0,
        "inner": {"kind": "vq", **vq, "size": None},
    }
    for levels, kind, codebook in (
        (network, "vq", vq),
        (llamagen, "vq", {**vq, "l2_normalize": True}),
        (var, "multiscale", scales),
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield Tokenizer(
                encoder={"kind": "cnn", "arguments": {**levels, "in_channels": 3}},
                codebook={"kind": kind, "arguments": {**codebook, "size": 16}},
                decoder={"kind": "cnn", "arguments": {**levels, "out_channels": 3}},
                channels=3,
            ).eval()
