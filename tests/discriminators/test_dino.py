"""The discriminator on a frozen model against timm itself, and heads written out by hand."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.autograd import grad

from vqtrain.discriminators.dino import DINODiscriminator, TokenHead
from vqtrain.errors import ConfigError, WeightsError
from vqtrain.losses.parts.adversarial import gradient_penalty

NAME = "test_vit.r160_in1k"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Random weights in the form in which timm publishes them, with a head and for 160 px."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(timm.create_model(NAME).state_dict(), path)
    return str(path)


def dino(file: str | None, **changes: Any) -> DINODiscriminator:
    arguments: dict[str, Any] = {"in_channels": 3, "sample_size": (48, 48), "model": NAME}
    arguments |= {"size": 32, "blocks": [0, 5], "crop_probability": 0.5}
    torch.manual_seed(0)
    return DINODiscriminator(**{**arguments, "weights": {"discriminator": file}, **changes})


def normalized(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Of 32 groups of channels each, over all tokens; then a leaky ReLU."""
    grouped = x.unflatten(1, (32, -1)).flatten(2)
    mean = grouped.mean(2, keepdim=True)
    variance = ((grouped - mean) ** 2).mean(2, keepdim=True)
    x = ((grouped - mean) / (variance + 1e-6).sqrt()).reshape(x.shape)
    x = x * scale[:, None] + shift[:, None]
    return torch.where(x > 0, x, 0.2 * x)


def head_by_hand(w: dict[str, Tensor], tokens: Tensor) -> Tensor:
    x = torch.einsum("oi,bin->bon", w["first.0.weight"][..., 0], tokens)
    x = x + w["first.0.bias"][:, None]
    x = normalized(x, w["first.1.weight"], w["first.1.bias"])
    y = w["second.0.bias"][:, None].expand_as(x)
    for offset in range(-4, 5):  # token n sees token n + offset, around the ends
        tap = w["second.0.weight"][..., offset + 4]
        y = y + torch.einsum("oi,bin->bon", tap, x.roll(-offset, dims=2))
    y = normalized(y, w["second.1.weight"], w["second.1.bias"])
    logits = torch.einsum("i,bin->bn", w["to_logits.weight"][0, :, 0], (x + y) / 2**0.5)
    return (logits + w["to_logits.bias"])[:, None]


def test_logits_and_gradients_are_those_of_heads_on_the_tokens_of_timm(file: str) -> None:
    made = dino(file, size=48).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)  # biases begin at 0
    theirs = timm.create_model(
        NAME, pretrained=True, pretrained_cfg_overlay={"file": file}, img_size=48
    )
    tokens: list[Tensor] = []
    for number in (0, 5):
        theirs.blocks[number].register_forward_hook(lambda _, __, output: tokens.append(output))
    images = (torch.rand(2, 3, 48, 48, dtype=torch.float64) * 2 - 1).requires_grad_()
    theirs.eval().double()(images)  # its mean and its deviation are 0.5
    expected = []
    for head, each in zip(made.heads, tokens, strict=True):
        patches = (each[:, 1:] + each[:, :1]).transpose(1, 2)  # the class token comes first
        expected.append(head_by_hand(dict(head.named_parameters()), patches))
    found = made(images)
    assert [each.shape for each in found] == [(2, 1, 9), (2, 1, 9)]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)

    def gradients(logits: list[Tensor]) -> list[Tensor]:
        return list(grad(torch.cat(logits).pow(3).sum(), [images, *made.parameters()]))

    torch.testing.assert_close(gradients(found), gradients(expected), rtol=1e-8, atol=1e-10)


def test_a_head_has_the_parameters_of_the_papers() -> None:
    with torch.device("meta"):
        head = TokenHead(384)
    assert sum(p.numel() for p in head.parameters()) == 1_477_249


def test_weights_begin_small_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    head = TokenHead(64)
    # Half of Xavier's deviation, which is the root of 2 over the sum of inputs and outputs.
    for layer, inputs, outputs in ((head.first[0], 64, 64), (head.second[0], 576, 576)):
        expected = 0.5 * (2 / (inputs + outputs)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.03)
        assert not layer.bias.any()


def test_the_model_is_neither_saved_nor_trained(file: str) -> None:
    made = dino(file)
    names = [*made.state_dict(), *dict(made.named_parameters())]
    assert names
    assert all(name.startswith("heads.") for name in names)
    before = {name: w.clone() for name, w in made.trunk.trunk.network.state_dict().items()}
    optimizer = torch.optim.SGD(made.train().parameters(), lr=1.0)
    torch.cat(made(torch.rand(1, 3, 32, 32))).square().sum().backward()
    optimizer.step()
    for name, weight in made.trunk.trunk.network.state_dict().items():
        assert torch.equal(weight, before[name])


@torch.no_grad()
def test_a_step_sees_one_part_of_all_images_or_the_whole(file: str) -> None:
    made, other = dino(file), dino(file)
    images = torch.rand(3, 3, 40, 56) * 2 - 1
    whole = made(images)
    corners = {}
    for step in range(40):
        made.begin_step(step, seed=7)
        other.begin_step(step, seed=7)
        assert made.place == other.place  # on every rank, and after a resume
        if made.place is not None:
            corners[step] = (int(made.place[0] * 9), int(made.place[1] * 25))
    assert 10 < len(corners) < 30
    assert len(set(corners.values())) > 5
    assert {row for row, _ in corners.values()} <= set(range(9))
    step, (top, left) = next(iter(corners.items()))
    made.begin_step(step, seed=7)
    expected = other.trunk(images[..., top : top + 32, left : left + 32])
    found = made(images)
    for logits, head, each in zip(found, made.heads, expected, strict=True):
        torch.testing.assert_close(logits, head(each.flatten(2)))
    # The same in two batches; and of images that are not larger all is seen.
    halves = [made(part) for part in images.split([1, 2])]
    for logits, *parts in zip(found, *halves, strict=True):
        torch.testing.assert_close(torch.cat(parts), logits)
    small = images[..., :20, :]
    seen = made(small)
    made.begin_step(next(step for step in range(40) if step not in corners), seed=7)
    torch.testing.assert_close(made(small), seen)
    torch.testing.assert_close(made(images), whole)


def test_crops_are_drawn_with_their_probability(file: str) -> None:
    for probability, expected in ((0.0, {True}), (1.0, {False})):
        made = dino(file, crop_probability=probability)
        places = []
        for step in range(20):
            made.begin_step(step, 0)
            places.append(made.place is None)
        assert set(places) == expected


@torch.no_grad()
def test_a_gray_image_is_one_of_three_equal_channels(file: str) -> None:
    gray = torch.rand(2, 1, 48, 48) * 2 - 1
    made = dino(file, in_channels=1)
    torch.testing.assert_close(made(gray), made(gray.expand(-1, 3, -1, -1)))


def test_the_penalty_on_gradients_reaches_the_heads(file: str) -> None:
    made = dino(file, blocks=[0]).double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    weight = made.heads[0].first[1].weight
    penalty = gradient_penalty(made, images)
    (found,) = grad(penalty, weight)
    # Along one direction it is the slope of the penalty.
    direction = torch.randn_like(weight) / 10
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * 1e-5 * direction)
        values.append(gradient_penalty(made, images).item())
        with torch.no_grad():
            weight.sub_(sign * 1e-5 * direction)
    slope = (values[0] - values[1]) / 2e-5
    assert (found * direction).sum().item() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": 2}, "the discriminator needs images of 1 or 3 channels, got 2 channels"),
        ({"size": 16}, "size must be at least that of 4 patches, got 16"),
        ({"size": 40}, "size must be a multiple of the patches of test_vit"),
        ({"blocks": [6]}, "blocks must be ascending numbers of 0 to 5"),
        ({"crop_probability": 1.5}, r"crop_probability must be in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_arguments_are_refused(file: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dino(file, **changes)


def test_weights_that_are_missing_foreign_or_damaged_are_named(file: str, tmp_path: Path) -> None:
    foreign, damaged = tmp_path / "foreign.safetensors", tmp_path / "damaged.safetensors"
    save_file(timm.create_model("test_vit2").state_dict(), foreign)
    damaged.write_bytes(Path(file).read_bytes()[:1000])
    for path in (tmp_path / "none", foreign, damaged):
        with pytest.raises(WeightsError, match=r"weights\.discriminator") as caught:
            dino(str(path))
        assert "\n" not in str(caught.value)
