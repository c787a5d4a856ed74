"""A step that keeps less computes the same."""

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vqtrain.build import build, kinds
from vqtrain.errors import ConfigError
from vqtrain.layers.frozen import Frozen
from vqtrain.ops.seeds import seed_torch
from vqtrain.training.acceleration import lay_out, lay_out_weights, recompute
from vqtrain.weights import without_downloads

SmallPart = Callable[..., dict[str, Any]]
# Networks of one resolution.
WITHOUT_LEVELS = {
    *("latent_query", "magvit2_video", "rectifier", "timm", "videogpt", "vit", "vqvae"),
}
# Latents of samples by the number of their axes.
GRIDS = {1: (64,), 2: (4, 4), 3: (4, 4, 4)}


def differentiate(network: nn.Module, given: Tensor) -> tuple[list[Tensor], int]:
    """Return all gradients of a pass in training mode, and the bytes kept for them."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    network.train()
    if hasattr(network, "begin_step"):
        network.begin_step(3, seed=0)
    given = given.clone().requires_grad_()
    seed_torch(0)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = network(given)
    output.square().mean().backward()
    gradients = {name: each.grad for name, each in network.named_parameters()}
    network.zero_grad()
    return [given.grad, *(each for each in gradients.values() if each is not None)], sum(
        kept.values()
    )


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        (group, kind)
        for group in ("encoder", "decoder")
        for kind in kinds(group)
        if kind != "identity"  # which keeps nothing
    ],
)
def test_gradients_are_the_same_and_less_is_kept(
    group: str, kind: str, small_part: SmallPart
) -> None:
    more = {"dropout": 0.3, "nested_dropout": "uniform", "adaptive_norm": True}
    # Blocks of sounds are small beside the strided convolutions between them.
    num_blocks = 6 if kind == "jukebox" else 2
    part = small_part(group, kind, num_blocks=num_blocks, depth=3, **more)
    with without_downloads():
        network = build(group, part["kind"], part["arguments"])
    axes = len(network.downsampling if group == "encoder" else network.upsampling)
    given = torch.randn(2, 3, *((64, 64) if axes == 2 else network.size(GRIDS[axes])))
    if group == "decoder":
        grid = (4,) if "num_tokens" in part["arguments"] else GRIDS[axes]
        given = torch.randn(2, network.in_channels, *grid)
    names = list(network.state_dict())
    plain, kept = differentiate(network, given)
    assert len(plain) > 1
    for unit in ("level", "block"):
        changed = copy.deepcopy(network)
        if unit == "level" and kind in WITHOUT_LEVELS:
            with pytest.raises(ConfigError, match=r"has no levels; .*=block recomputes its blocks"):
                recompute({group: changed}, unit)
            continue
        recompute({group: changed}, unit)
        again, kept_again = differentiate(copy.deepcopy(changed), given)
        assert all(map(torch.equal, plain, again))
        assert kept_again < 0.75 * kept
        assert list(changed.state_dict()) == names


def test_a_network_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the encoder, Linear, has no blocks .*layers.block"):
        recompute({"encoder": nn.Linear(2, 2)}, "block")


@pytest.mark.parametrize(
    ("memory_format", "last"), [("auto", True), ("channels_last", True), ("contiguous", False)]
)
def test_images_lie_as_asked(memory_format: str, last: bool) -> None:
    for images in (torch.rand(2, 3, 4, 5), torch.rand(2, 4, 5, 3).movedim(3, 1)):
        found = lay_out(images, memory_format)
        assert torch.equal(found, images)
        assert found.is_contiguous(memory_format=torch.channels_last) == last
        assert found.is_contiguous() != last


def test_kernels_lie_as_asked_in_frozen_networks_too() -> None:
    convolutions = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    module = nn.Sequential(convolutions[0], Frozen(convolutions[1]))
    for memory_format, last in (("channels_last", True), ("contiguous", False)):
        lay_out_weights(module, memory_format)
        found = [c.weight.is_contiguous(memory_format=torch.channels_last) for c in convolutions]
        assert found == [last, last]


WHOLE = """
import json, sys
from types import SimpleNamespace
import torch
from torch import nn
from torch._dynamo.utils import counters
from vqtrain.build import build
from vqtrain.layers import classifiers
from vqtrain.layers.promises import size_for
from vqtrain.training.acceleration import compile_parts, recompute
from vqtrain.weights import without_downloads

classifiers.SIZE = (32, 32)
compiled = torch.compile
torch._dynamo.config.allow_rnn = True  # else it breaks the graph, and runs it as it is written
# The graphs are those of every backend, and a break in one is an error.
torch.compile = lambda function, *, options, **rest: compiled(
    function, backend="eager", fullgraph=True, **rest
)

for group, kind, arguments in json.load(sys.stdin):
    torch._dynamo.reset()
    counters.clear()
    with without_downloads():
        built = build(group, kind, arguments)
    if group in ("decoder", "discriminator"):
        built.begin_step(0, seed=0)
    size = size_for(built)
    if group == "encoder" and len(built.downsampling) != 2:
        size = built.size((4,) * len(built.downsampling))
    inputs = [torch.rand(2, 3, *size, requires_grad=True)]
    if group == "decoder":
        grid = (4,) * (1 if "num_tokens" in arguments else len(built.upsampling))
        inputs = [torch.rand(2, built.in_channels, *grid, requires_grad=True)]
    elif group == "loss":
        inputs.append(torch.rand(2, 3, 64, 64))
    eager, layer = built(*inputs), nn.Linear(1, 1)
    layer.last_layer = None  # it stands for the parts that are not compared
    tokenizer = SimpleNamespace(**{"encoder": layer, "decoder": layer, group: built})
    objective = SimpleNamespace(losses=[built] if group == "loss" else [], goes_deeper=False)
    clock = compile_parts(tokenizer, objective, accumulate=1)
    if group == "discriminator":
        built.compile(options=None)
    for unit in ("none", "block") if kind in ("maskgit", "vit") else ("none",):
        recompute({group: built}, unit)
        torch.testing.assert_close(built(*inputs), eager)
        assert clock.take_seconds() > 0
    built(*inputs)
    assert clock.take_seconds() == 0  # as it is compiled
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] > 0
    print(group, kind)
"""
LOSSES = ["dino", "gram", "lpips"]  # and classifiers of torchvision


@pytest.mark.slow
def test_every_network_compiles_into_whole_graphs(
    small_part: SmallPart, start_python: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    groups = {group: kinds(group) for group in ("encoder", "decoder", "discriminator")}
    small = {"multipliers": [1, 2], "attention_factors": [2], "time_strides": [2], "head_dim": 8}
    given = [
        (group, kind, small_part(group, kind, **small)["arguments"])
        for group, words in {**groups, "loss": LOSSES}.items()
        for kind in words
    ]
    script = tmp_path / "script.py"
    script.write_text(WHOLE)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start_python(script, **pipes) as process:  # without checks of shapes
        out, errors = process.communicate(json.dumps(given), timeout=300)
    assert process.returncode == 0, errors
    assert len(out.splitlines()) == len(given)
