"""Every encoder, decoder, codebook and discriminator: they fit, or are refused in a line.

Run with ``-s`` to see how many there are.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqtrain import Tokenizer
from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.settings import Settings
from vqtrain.app.parts.shapes import check_shapes
from vqtrain.build import build_part, in_context, kinds, resolve, split_kind
from vqtrain.errors import ConfigError
from vqtrain.layers.promises import size_for
from vqtrain.ranges import resolve_fractions
from vqtrain.training.module import TokenizerTraining
from vqtrain.weights import without_downloads

SIZE = 32
# So few weights that a step takes milliseconds; each network has 8 px per latent where it can.
SMALL = {
    "encoder": {
        "cnn": ["channels=8", "multipliers=[1,1,1,2]", "num_blocks=1", "attention_factors=[8]"],
        "dcae": ["channels=8"],
        "dvae": ["channels=8"],
        "latent_query": ["patch_size=8", "num_tokens=4", "dim=8", "depth=1", "num_heads=2"],
        "magvit2": ["channels=8", "multipliers=[1,1,1,2]", "num_blocks=1"],
        "maskgit": ["channels=8", "multipliers=[1,1,1,2]", "num_blocks=1"],
        "jukebox": ["channels=8", "num_blocks=1"],
        "videogpt": ["channels=8", "num_blocks=1"],
        "magvit2_video": ["channels=8", "multipliers=[1,1,1,2]", "num_blocks=1"],
        "seanet": ["channels=4", "strides=[2,4]"],
        "timm": ["model=test_vit", "pretrained=false"],
        "identity": [],
        "vit": ["patch_size=8", "dim=8", "depth=1", "num_heads=2"],
        "vqvae": ["channels=8", "block_channels=4", "num_downsamplings=3"],
    },
    "codebook": {
        "hierarchical": ["channels=4", "block_channels=4", "num_blocks=1"],
        "multiscale": ["scales=[1,2,4]", "num_convolutions=2", "inner.dim=4"],
        "residual": ["inner.dim=4"],
        "grouped": ["inner.dim=4", "num_codebooks=2"],
        "bsq": [],
        "fsq": [],
        "lfq": [],
    },
    "discriminator": {
        "blur": ["channels=4", "num_layers=1"],
        "dino": ["model=test_vit", "size=32", "blocks=[5]"],
        "msstft": ["channels=4", "frames=[32,16]"],
        "multiperiod": ["channels=1"],
        "multiscale": ["channels=4", "num_layers=1", "num_scales=2"],
        "patchgan": ["channels=4", "num_layers=1"],
        "patchgan3d": ["channels=4", "num_layers=1"],
        "stylegan": ["channels=4", "max_channels=8"],
    },
}
CONTEXT = {"in_channels": 3, "out_channels": 3, "sample_size": (SIZE, SIZE), "weights": {}}
DECODER = {
    "vqvae": ["channels=8", "block_channels=4", "num_upsamplings=3"],
    "rectifier": ["channels=8", "num_blocks=1"],
    "rectified": [
        *("rectifier.channels=8", "rectifier.num_blocks=1"),
        *("inner.channels=8", "inner.multipliers=[1,1,1,2]", "inner.num_blocks=1"),
    ],
}


def words(group: str, kind: str) -> list[str]:
    """The choice of a part, with small sizes."""
    small = SMALL["encoder" if group == "decoder" else group]
    sizes = DECODER.get(kind, small.get(kind, [])) if group == "decoder" else small.get(kind)
    if sizes is None:
        sizes = ["dim=4"]
    return [f"{group}={kind}", *(f"{group}.{size}" for size in sizes)]


def read(*overrides: str) -> dict[str, Any]:
    """Compose a training run of two images of 32 px."""
    common = [f"data.image_size={SIZE}", "data.batch_size=2", "codebook.size=16"]
    common += ["loss.adversarial.start_step=0", "trainer.max_steps=10", "data.train=demo"]
    config = compose("train", read_command_line([*common, *overrides]))
    return resolve_fractions(config, max_steps=10)


def step(module: TokenizerTraining, size: Sequence[int]) -> None:
    """One step without a trainer, forward and backward."""
    samples = torch.rand(2, 3, *size) * 2 - 1
    codebook = module.tokenizer.codebook
    codebook.begin_step(0, 0)
    output = module.tokenizer(samples)
    total = module.objective(samples, output, module.layers, 0, is_last=True).total
    assert torch.isfinite(total)
    total.backward()
    codebook.update(0)


class PartsWithoutValues:
    """Builds equal parts once, and runs them once on a shape: that is all that differs in them."""

    def __init__(self) -> None:
        self.built: dict[str, nn.Module] = {}

    def build(self, group: str, specification: Mapping[str, object]) -> nn.Module:
        """Take the place of ``build_part``."""
        key = f"{group} {specification}"
        if key not in self.built:
            part = build_part(group, specification)
            if not getattr(part, "causal", False):  # what it gives depends on the step before
                part.forward = self.once(part.forward)
            self.built[key] = part
        return self.built[key]

    def once(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Run on each shape once."""
        known: dict[torch.Size, Tensor] = {}

        def run(sample: Tensor) -> Tensor:
            assert sample.is_meta
            if sample.shape not in known:
                known[sample.shape] = forward(sample)
            return known[sample.shape]

        return run


@pytest.mark.parametrize("discriminator", kinds("discriminator"))
def test_a_discriminator_takes_the_samples_of_every_tokenizer(discriminator: str) -> None:
    config = read(*words("discriminator", discriminator))
    with torch.device("meta"), without_downloads():
        size = size_for(resolve("discriminator", discriminator))
        context = {**CONTEXT, "sample_size": size}
        part = in_context("discriminator", split_kind(config["discriminator"]), context)
        logits = build_part("discriminator", part)(torch.zeros(2, 3, *size))
    assert {len(each) for each in logits} == {2}


@pytest.mark.parametrize("encoder", kinds("encoder"))
def test_every_combination_fits_or_is_refused_in_one_line(encoder: str) -> None:
    shared = PartsWithoutValues()
    found: Counter[str] = Counter()
    groups = {
        group: [read(*words(group, kind))[group] for kind in kinds(group)]
        for group in ("decoder", "codebook")
    }
    if encoder == "timm":  # its smallest model has patches of 16 px
        groups["decoder"][kinds("decoder").index("vit")]["patch_size"] = 16
    config = read(*words("encoder", encoder))
    specification = in_context("encoder", split_kind(config["encoder"]), CONTEXT)
    with torch.device("meta"), without_downloads():
        built = build_part("encoder", specification)
    axes = len(built.downsampling)
    size = (SIZE,) * axes if axes < 3 else built.size((2,) * axes)
    context = {**CONTEXT, "sample_size": size}
    adversaries = []
    if axes < 3:  # a clip of the smallest grid is too small for any
        adversaries = [
            read(*words("discriminator", kind))
            for kind in kinds("discriminator")
            if resolve("discriminator", kind).axes in (None, axes)
        ]
    for number, parts in enumerate(product(*groups.values())):
        config |= dict(zip(groups, parts, strict=True))
        message = ""
        try:
            with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
                patch.setattr("vqtrain.tokenizer.model.build_part", shared.build)
                tokenizer = Tokenizer(
                    **{
                        group: in_context(group, split_kind(config[group]), context)
                        for group in ("encoder", "codebook", "decoder")
                    },
                    channels=3,
                )
                check_shapes(tokenizer, size, "data.image_size")
        except ConfigError as error:
            message = str(error)
        assert "\n" not in message
        found["refused" if message else "fit"] += 1 + len(adversaries)
        # No part knows another: a step of some is enough, without a discriminator and with each.
        if not message and number % (9 if adversaries else 4) == 0:
            chosen = [config, *adversaries][number // 9 % (1 + len(adversaries))]
            config |= {key: chosen[key] for key in ("discriminator", "loss")}
            with without_downloads():  # so pretrained networks have random weights
                step(build_module(config, Settings.of(config), size), size)
            found["trained"] += 1
    print(f"encoder={encoder}: {dict(found)}")  # noqa: T201 - the number is worth knowing
    assert found["trained"]
