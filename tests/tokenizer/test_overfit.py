"""Families of networks learn one photograph by heart: to tokens, and back to its pixels."""

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

SIDE = 64  # px
CNN = ["channels=16", "multipliers=[1,2,2]", "num_blocks=1"]
QUERIES = ["patch_size=8", "num_tokens=64", "dim=96", "depth=1", "num_heads=4"]
# Of each family: sizes of its networks, steps, and the decibels that it reaches at least.
FAMILIES = {
    "vqvae": (["channels=48", "block_channels=24"], 600, 30),
    "cnn": ([*CNN, "attention_factors=[]"], 230, 30),
    "maskgit": (CNN, 320, 30),
    "magvit2": (CNN, 230, 30),
    "latent_query": (QUERIES, 200, 24),
}


def photograph() -> Tensor:
    """The astronaut of scikit-image, in [-1, 1]."""
    picture = Image.open(f"{skimage.data_dir}/astronaut.png").convert("RGB").resize((SIDE, SIDE))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def build(network: str, sizes: list[str]) -> Tokenizer:
    groups = ("encoder", "decoder")
    typed = [*(f"{group}={network}" for group in groups), "codebook=ema"]
    typed += [f"{group}.{size}" for group in groups for size in sizes]
    config = resolve_fractions(compose("train", read_command_line(typed)), max_steps=1000)
    context = {"in_channels": 3, "out_channels": 3, "sample_size": (SIDE, SIDE)}
    parts = {
        group: in_context(group, split_kind(dict(config[group])), context)
        for group in (*groups, "codebook")
    }
    return Tokenizer(**parts, channels=3)


def overfit(tokenizer: Tokenizer, images: Tensor, steps: int) -> None:
    """Train as the trainer does, with a warm-up and a linear decay."""
    with torch.no_grad():
        tokenizer.codebook.initialize(tokenizer.eval().latents(images))
    tokenizer.train()
    optimizer = torch.optim.AdamW(tokenizer.parameters(), betas=(0.9, 0.99), weight_decay=0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min((step + 1) / 20, 1 - step / steps)
        tokenizer.codebook.begin_step(step, 0)
        made = tokenizer(images)
        optimizer.zero_grad()
        (F.mse_loss(made.samples, images) + made.quantized.loss).backward()
        nn.utils.clip_grad_norm_(tokenizer.parameters(), 1.0)
        optimizer.step()
        tokenizer.codebook.update(step)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_one_photograph_is_learned_by_heart(family: str) -> None:
    sizes, steps, least = FAMILIES[family]
    torch.manual_seed(0)
    tokenizer, images = build(family, sizes), photograph()
    overfit(tokenizer, images, steps)
    with torch.no_grad():
        made = tokenizer.eval().decode(tokenizer.encode(images))
    assert -10 * torch.log10((made - images).square().mean() / 4) > least
