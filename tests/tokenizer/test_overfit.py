"""Families of networks learn one photograph by heart: to tokens, and back to its pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
import skimage
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import in_context, split_kind
from vqtrain.ranges import resolve_fractions

SIDE = 32  # px
BLOCKS = ["channels=48", "block_channels=24"]
CNN = ["channels=16", "multipliers=[1,2,2]", "num_blocks=1"]
PATCHES = ["patch_size=8", "depth=1", "num_heads=4"]
LEVELS = ["codebook=hierarchical", *(f"codebook.{size}" for size in BLOCKS)]


class Family(NamedTuple):
    """What is trained, how, and the decibels that it reaches at least."""

    network: str
    sizes: list[str]
    steps: int
    codebook: Sequence[str] = ("codebook=ema",)
    lr: float = 3e-3
    least: float = 30


FAMILIES = {
    "vqvae": Family("vqvae", BLOCKS, 300),
    "vqvae2": Family("vqvae", BLOCKS, 270, LEVELS),
    "cnn": Family("cnn", [*CNN, "attention_factors=[]"], 120),
    "maskgit": Family("maskgit", CNN, 130),
    "magvit2": Family("magvit2", CNN, 95),
    "dvae": Family("dvae", ["channels=64", "multipliers=[1,1]", "num_blocks=1"], 340, lr=1e-2),
    "vit": Family("vit", [*PATCHES, "dim=192"], 230),
    "latent_query": Family("latent_query", [*PATCHES, "num_tokens=64", "dim=96"], 140),
}


def photograph() -> Tensor:
    """The astronaut of scikit-image, in [-1, 1]."""
    picture = Image.open(f"{skimage.data_dir}/astronaut.png").convert("RGB").resize((SIDE, SIDE))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def build(family: Family) -> Tokenizer:
    groups = ("encoder", "decoder")
    typed = [*(f"{group}={family.network}" for group in groups), *family.codebook]
    typed += [f"{group}.{size}" for group in groups for size in family.sizes]
    config = resolve_fractions(compose("train", read_command_line(typed)), max_steps=1000)
    context = {"in_channels": 3, "out_channels": 3, "sample_size": (SIDE, SIDE)}
    parts = {
        group: in_context(group, split_kind(dict(config[group])), context)
        for group in (*groups, "codebook")
    }
    return Tokenizer(**parts, channels=3)


def overfit(tokenizer: Tokenizer, images: Tensor, steps: int, lr: float) -> None:
    """Train as the trainer does, with a warm-up and a linear decay."""
    with torch.no_grad():
        tokenizer.codebook.initialize(tokenizer.eval().latents(images))
    tokenizer.train()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), betas=(0.9, 0.99), weight_decay=0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min((step + 1) / 20, 1 - step / steps)
        tokenizer.codebook.begin_step(step, 0)
        made = tokenizer(images)
        optimizer.zero_grad()
        (F.mse_loss(made.samples, images) + made.quantized.loss).backward()
        nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
        optimizer.step()
        tokenizer.codebook.update(step)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_one_photograph_is_learned_by_heart(family: Family) -> None:
    torch.manual_seed(0)
    tokenizer, images = build(family), photograph()
    overfit(tokenizer, images, family.steps, family.lr)
    with torch.no_grad():
        made = tokenizer.eval().decode(tokenizer.encode(images))
    psnr = -10 * torch.log10((made - images).square().mean() / 4)
    print(f"{psnr:.2f} dB")  # noqa: T201 - the number is worth knowing
    assert psnr > family.least
