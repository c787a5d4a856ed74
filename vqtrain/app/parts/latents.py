"""Latents of a continuous tokenizer as images to train on."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.data.tokens.report import Report
from vqtrain.data.tokens.statistics import limit_of, weight_of
from vqtrain.errors import VqtrainError, require
from vqtrain.tokenizer.any_size import AnySize
from vqtrain.tokenizer.model import Tokenizer


def check_latents(tokenizer: Tokenizer, any_size: AnySize | None, layout: str) -> None:
    """Refuse latents that data.train could not read as images.

    Raises:
        ConfigError: If the tokenizer has ids, which say as much, its latents are on no grid of two
            axes, or they are to differ in shape or to be one array.
    """
    require(
        tokenizer.codebook.num_codebooks == 0,
        f"latents=true is for continuous tokenizers, and codebook="
        f"{tokenizer.specification['codebook']['kind']} has ids, which are smaller: leave it out",
    )
    require(
        len(tokenizer.downsampling) == 2,
        "latents=true is for tokenizers of images: those of clips and sounds are no images",
    )
    require(
        any_size is None,
        "latents=true writes latents of one shape: leave out max_tokens, pad, tile and thumbnail",
    )
    require(layout == "webdataset", f"latents=true needs layout=webdataset, got {layout}")


def latents_of(
    tokenizer: Tokenizer, images: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b h_z w_z d"]:
    """Return what the decoder is given, channels last, as arrays of images have them.

    Raises:
        VqtrainError: If a value does not fit the type of the files.
    """
    z_q = tokenizer.quantize(tokenizer.latents(images)).z_q
    largest, limit = float(z_q.abs().max()), torch.finfo(torch.float16).max
    if largest > limit:
        raise VqtrainError(
            f"latents as large as {largest:g} do not fit float16, whose limit is {limit:,.0f}: "
            "this tokenizer needs the scaling of its latents"
        )
    return z_q.movedim(1, -1)


def data_words(report: Report) -> list[str]:
    """Write the keys of ``vqtrain train`` that depend on the latents, by their index.json."""
    height, width, channels = cast(list[int], report["latents"]["shape"])
    limit = limit_of(report["statistics"])
    return [
        f"data.channels={channels}",
        f"data.image_size=[{height},{width}]",
        f"data.range=[{-limit:g},{limit:g}]",
        f"loss.reconstruction.weight={weight_of(report['statistics']):g}",
    ]
