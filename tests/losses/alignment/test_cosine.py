"""GigaTok's loss against its formula, with the tokens of timm itself, and at a layer of a run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vqtrain.build import build
from vqtrain.cli import main
from vqtrain.losses.alignment.cosine import Cosine

MODEL = "test_vit.r160_in1k"


def test_values_and_gradients_are_those_of_the_formula(
    vision_file: str, tokens_of: Callable[[Tensor], Tensor]
) -> None:
    arguments = {"model": MODEL, "size": 48, "layer": "decoder.queries", "in_channels": 3}
    arguments |= {"sample_size": (40, 24), "aligned_channels": 3, "aligned_grid": (2, 2)}
    arguments |= {"weights": {"alignment": vision_file}}
    loss = build("alignment", "cosine", arguments)
    assert isinstance(loss, Cosine)
    assert loss.layer == "decoder.queries"
    loss.double().train()
    images = torch.rand(2, 3, 40, 24, dtype=torch.float64) * 2 - 1
    latents = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    inputs = [latents, *loss.parameters()]
    found = loss(latents, images, [])

    first, _, second, _, third = loss.projection
    assert (first.out_features, second.out_features, third.out_features) == (12, 12, 64)
    tokens = tokens_of(images)
    total = torch.zeros((), dtype=torch.float64)
    for image in range(2):
        for row in range(2):
            for column in range(2):
                x = latents[image, :, row, column]
                for layer in (first, second):
                    x = layer.weight @ x + layer.bias
                    x = x / (1 + (-x).exp())
                x = third.weight @ x + third.bias
                token = tokens[image, :, row, column]
                total = total - x @ token / (x.norm() * token.norm()) / 8
    torch.testing.assert_close(found, total, rtol=1e-9, atol=0)
    for one, other in zip(
        torch.autograd.grad(found, inputs), torch.autograd.grad(total, inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_a_tokenizer_of_one_axis_is_aligned_at_a_layer_of_two(
    tiny: list[str], vision_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for word in tiny if not word.startswith(("encoder.", "decoder."))]
    for part in ("encoder", "decoder"):
        words += [f"{part}=latent_query", f"{part}.patch_size=8", f"{part}.dim=8"]
        words += [f"{part}.depth=1", f"{part}.num_heads=2", f"{part}.num_tokens=4"]
    words += ["loss/alignment=cosine", f"loss.alignment.model={MODEL}", "loss.alignment.size=32"]
    words += [f"weights.alignment={vision_file}", f"run_dir={tmp_path / 'run'}"]
    assert main(["train", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "a grid of 4: loss/alignment=cosine takes the output of a layer of two axes" in err
    assert main(["train", *words, "loss.alignment.layer=decoder.queries"]) == 0
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert all(-0.5 <= json.loads(line)["train/generator/alignment"] <= 0.5 for line in lines)
