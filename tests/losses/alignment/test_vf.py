"""VA-VAE's loss against its formula, with the tokens of timm itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vqtrain.build import build
from vqtrain.cli import main
from vqtrain.errors import ConfigError
from vqtrain.losses.alignment.vf import VF

MODEL = "test_vit.r160_in1k"


def vf(file: str | None, **changes: object) -> VF:
    arguments = {"model": MODEL, "size": 48, "cosine_margin": 0.5, "distance_margin": 0.25}
    arguments |= {"in_channels": 3, "sample_size": (40, 24), "weights": {"alignment": file}}
    arguments |= {"aligned_channels": 3, "aligned_grid": (2, 2)}
    return build("alignment", "vf", {**arguments, **changes}, where="loss.alignment")  # type: ignore[return-value]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return a @ b / (a.norm() * b.norm())


def test_values_and_gradients_are_those_of_the_formula(
    vision_file: str, tokens_of: Callable[[Tensor], Tensor]
) -> None:
    loss = vf(vision_file).double().train()
    images = torch.rand(2, 3, 40, 24, dtype=torch.float64) * 2 - 1
    latents = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    found = loss(latents, images, [])
    gradients = torch.autograd.grad(found, [latents, loss.projection.weight])

    tokens = tokens_of(images)
    total = torch.zeros((), dtype=torch.float64)
    beyond = 0
    for image in range(2):
        places = [(row, column) for row in range(2) for column in range(2)]
        mine = [loss.projection.weight[:, :, 0, 0] @ latents[image, :, r, c] for r, c in places]
        theirs = [tokens[image, :, r, c] for r, c in places]
        for i in range(4):
            total = total + (1 - 0.5 - cosine(mine[i], theirs[i])).clamp(min=0) / 8
            for j in range(4):
                apart = (cosine(mine[i], mine[j]) - cosine(theirs[i], theirs[j])).abs()
                beyond += int(apart > 0.25)
                total = total + (apart - 0.25).clamp(min=0) / 32
    assert 0 < beyond < 32
    torch.testing.assert_close(found, total, rtol=1e-9, atol=0)
    expected = torch.autograd.grad(total, [latents, loss.projection.weight])
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert [name for name, _ in loss.named_parameters()] == ["projection.weight"]
    assert list(loss.state_dict()) == ["projection.weight"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(latents, images, []), found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aligned_grid": (4,)}, "what is to be aligned is a grid of 4: loss/alignment=cosine"),
        ({"in_channels": 2}, "loss/alignment=vf needs images of 1 or 3 channels, got 2"),
        ({"size": 40}, r"loss\.alignment\.size must be a multiple of the patches of test_vit"),
        ({"model": "test_vi"}, r"loss\.alignment\.model must be the name of a model of timm"),
        ({"cosine_margin": 3.0}, r"cosine_margin must be"),
    ],
)
def test_what_does_not_fit_is_one_line(
    vision_file: str, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        vf(vision_file, **changes)
    assert "\n" not in str(caught.value)


def test_missing_and_wrong_weights_are_one_line_before_the_start(
    tiny: list[str],
    vision_file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged, other = tmp_path / "damaged.safetensors", tmp_path / "other.safetensors"
    damaged.write_bytes(Path(vision_file).read_bytes()[:-100])
    save_file({"layer": torch.zeros(2)}, other)
    words = [*tiny, "loss/alignment=vf", f"loss.alignment.model={MODEL}", "loss.alignment.size=32"]
    for file, reason in (
        (tmp_path / "none.safetensors", "none.safetensors"),
        (damaged, "cannot load"),
        (other, "cannot load"),
    ):
        run = tmp_path / "run"
        assert main(["train", *words, f"weights.alignment={file}", f"run_dir={run}"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert reason in err
        assert str(file) in err
        assert not run.exists()


@pytest.mark.slow
def test_a_run_trains_the_projection(tiny: list[str], vision_file: str, tmp_path: Path) -> None:
    words = [*tiny, "loss/alignment=vf", f"loss.alignment.model={MODEL}", "loss.alignment.size=32"]
    run = tmp_path / "run"
    assert main(["train", *words, f"weights.alignment={vision_file}", f"run_dir={run}"]) == 0
    first, last = (
        torch.load(run / f"checkpoints/step_0000000{step}.ckpt", weights_only=True)
        for step in (2, 4)
    )
    assert list(last["training"]["alignment"]) == ["projection.weight"]
    before, after = (file["training"]["alignment"]["projection.weight"] for file in (first, last))
    assert not torch.equal(before, after)
    assert not any("projection.weight" in name for name in last["tokenizer"]["weights"])
