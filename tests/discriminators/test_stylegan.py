"""StyleGAN2's discriminator against formulas written out from its raw weights."""

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import grad, gradgradcheck

from vqtrain.discriminators.stylegan import StyleGAN
from vqtrain.errors import ConfigError

FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8


def stylegan(**changes: object) -> StyleGAN:
    arguments = {
        "in_channels": 3,
        "sample_size": (16, 16),
        "channels": 4,
        "max_channels": 6,
        "group_size": 4,
        **changes,
    }
    torch.manual_seed(0)
    return StyleGAN(**arguments)  # type: ignore[arg-type]  # plain data


def filtered(x: Tensor, padding: int) -> Tensor:
    """Filter along both axes, one after the other, by sums of shifted maps."""
    for dim in (-2, -1):
        x = x.transpose(dim, -1)
        x = F.pad(x, (padding, padding))
        n = x.shape[-1] - 3
        x = sum(weight * x[..., i : i + n] for i, weight in enumerate(FILTER))  # type: ignore[assignment]
        x = x.transpose(dim, -1)
    return x


def gained(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x) * 2**0.5


def by_hand(w: Mapping[str, Tensor], images: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """The network of the papers; the 1x1 shortcut skips every second position, as published."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight = w[f"{name}.weight"]
        scaled = weight / math.sqrt(weight.shape[1] * weight.shape[2] * weight.shape[3])
        y = F.conv2d(F.pad(x, (padding,) * 4), scaled, stride=stride)
        return y + w[f"{name}.bias"][:, None, None] if f"{name}.bias" in w else y

    def linear(x: Tensor, name: str) -> Tensor:
        weight = w[f"{name}.weight"]
        return x @ weight.T / math.sqrt(weight.shape[1]) + w[f"{name}.bias"]

    x = gained(conv(images, "from_image"))
    for block in range(2):
        name = f"blocks.{block}"
        h = gained(conv(x, f"{name}.conv1", padding=1))
        h = gained(conv(filtered(h, 2), f"{name}.conv2", stride=2))
        x = (h + conv(filtered(x, 1), f"{name}.shortcut", stride=2)) / 2**0.5
    added = torch.empty(len(x), 1, *x.shape[2:], dtype=x.dtype)
    for group in groups:
        chosen = x[list(group)]
        variance = ((chosen - chosen.mean(0)) ** 2).mean(0)
        added[list(group)] = (variance + 1e-8).sqrt().mean()
    x = gained(conv(torch.cat([x, added], dim=1), "conv", padding=1))
    return linear(gained(linear(x.flatten(1), "hidden")), "to_logit")


@pytest.mark.parametrize("size", [(16, 16), (19, 30)])
def test_logits_and_both_gradients_are_those_of_the_formula(size: tuple[int, int]) -> None:
    network = stylegan(sample_size=size).double()
    images = torch.rand(6, 3, *size, dtype=torch.float64, requires_grad=True)
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for parameter in weights.values():
            parameter.add_(torch.randn_like(parameter) / 10)  # biases begin at 0
    found, expected = network(images)[0], by_hand(weights, images, [(0, 1, 2), (3, 4, 5)])
    assert found.shape == (6, 1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    def gradients(logits: Tensor) -> list[Tensor]:
        """Of the logits, and of R1: half the mean squared norm of the gradient at the images."""
        (at_images,) = grad(logits.sum(), images, create_graph=True)
        penalty = at_images.square().sum((1, 2, 3)).mean() / 2
        inputs = list(weights.values())
        of_penalty = grad(penalty, inputs, retain_graph=True, materialize_grads=True)
        return [at_images, *of_penalty, *grad(logits.square().sum(), inputs)]

    torch.testing.assert_close(gradients(found), gradients(expected), rtol=1e-9, atol=1e-10)


def test_it_can_be_differentiated_twice() -> None:
    network = stylegan(sample_size=(8, 8), channels=2, in_channels=1).double()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(lambda x: network(x)[0], images, fast_mode=True)


def test_it_has_the_parameters_of_the_papers_network() -> None:
    with torch.device("meta"):
        network = stylegan(sample_size=(256, 256), channels=128, max_channels=512)
        smaller = stylegan(sample_size=(256, 256), channels=64, max_channels=512)
    assert sum(p.numel() for p in network.parameters()) == 28_864_129
    assert sum(p.numel() for p in smaller.parameters()) == 24_001_089


def test_weights_begin_with_a_deviation_of_one_and_activations_keep_theirs() -> None:
    network = stylegan(sample_size=(8, 8), channels=64, max_channels=64)
    assert network.blocks[0].conv1.weight.std().item() == pytest.approx(1.0, rel=0.02)
    x = torch.randn(8, 64, 8, 8)
    assert network.blocks[0].conv1(x)[..., 1:-1, 1:-1].std().item() == pytest.approx(1, rel=0.1)


def test_groups_are_neighbors_so_whole_groups_may_come_in_any_batches() -> None:
    network = stylegan().double()
    images = torch.rand(8, 3, 16, 16, dtype=torch.float64)
    whole = network(images)[0]
    torch.testing.assert_close(torch.cat([network(half)[0] for half in images.split(4)]), whole)
    # In one group they are compared, in different ones they are not.
    changed = torch.cat([images[:7], torch.ones_like(images[:1])])
    is_same = (network(changed)[0] - whole).abs().flatten() < 1e-12
    assert is_same.tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (3, [3]), (5, [3, 2]), (9, [3, 3, 3])])
def test_any_batch_is_divided_into_groups_of_about_one_size(count: int, sizes: list[int]) -> None:
    deviation = stylegan().deviation.double()
    x = torch.randn(count, 2, 4, 4, dtype=torch.float64)
    added = deviation(x)[:, -1, 0, 0]
    expected = [
        (group.var(0, correction=0) + 1e-8).sqrt().mean().expand(len(group))
        for group in x.split(sizes)
    ]
    torch.testing.assert_close(added, torch.cat(expected))


def test_a_batch_of_one_has_nothing_to_compare() -> None:
    assert [stylegan(group_size=size).least_batch_size for size in (1, 2, 4)] == [1, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_size": (64, 3)}, "takes images of at least 4 x 4 px, got 64 x 3"),
        ({"channels": 8}, r"max_channels must be at least channels \(8\), got 6"),
        ({"group_size": 0}, "group_size must be at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stylegan(**changes)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes images of 16 x 16 px, got 16 x 32"):
        stylegan()(torch.zeros(2, 3, 16, 32))
