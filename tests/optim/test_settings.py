"""The settings of the optimizer, and what it does with a gradient."""

import math
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from vqtrain.errors import ConfigError
from vqtrain.optim.settings import DiscriminatorOptimSettings, OptimSettings, build_optimizer

CONFIG = Path(__file__).parents[2] / "configs/optim/adam.yaml"
GOOD = {
    "lr": 0.1,
    "betas": [0.5, 0.75],
    "weight_decay": 0.25,
    "warmup_steps": 0,
    "schedule": "constant",
}


class Tiny(nn.Module):
    """A kernel, a norm, a bias, a codebook and a frozen kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.GroupNorm(2, 4)
        self.codebook = nn.ModuleDict({"inner": nn.Embedding(8, 4)})
        self.codebooks_apart = nn.Linear(4, 4, bias=False)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_the_config_holds_the_settings() -> None:
    config = yaml.safe_load(CONFIG.read_text())
    discriminator = DiscriminatorOptimSettings(**config.pop("discriminator"))
    settings = OptimSettings(**config)
    assert settings.lr == 2e-4
    assert settings.betas == [0.9, 0.99]
    assert discriminator.betas == [0.5, 0.9]


def test_messages_name_the_network() -> None:
    with pytest.raises(ConfigError, match=r"optim\.discriminator\.lr must be above 0"):
        DiscriminatorOptimSettings(**{**GOOD, "lr": -1.0}, clip=None)  # type: ignore[arg-type]  # plain data
    with pytest.raises(ConfigError, match=r"optim\.discriminator\.clip must be above 0 or null"):
        DiscriminatorOptimSettings(**GOOD, clip=0.0)  # type: ignore[arg-type]  # plain data


def test_weight_decay_acts_on_kernels_and_matrices_alone() -> None:
    module = Tiny()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    optimizer = build_optimizer(module.named_parameters(), OptimSettings(**GOOD))
    found = {
        group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]}
        for group in optimizer.param_groups
    }
    assert found == {
        0.25: {"conv.weight", "codebooks_apart.weight"},
        0.0: {"conv.bias", "norm.weight", "norm.bias", "codebook.inner.weight"},
    }


def test_two_updates_equal_the_hand_worked_value() -> None:
    weight = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    optimizer = build_optimizer([("weight", weight)], OptimSettings(**GOOD))
    # Step 1, gradient 3: the corrected means are 3 and 9, so Adam moves by lr * 3 / sqrt(9) = 0.1,
    # after decay by lr * 0.25 * 2 = 0.05: 2 - 0.05 - 0.1 = 1.85.
    weight.grad = torch.tensor([[3.0]], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(weight.data, torch.full_like(weight, 1.85), atol=1e-8, rtol=0)
    # Step 2, gradient -1: the mean is 0.5 * 1.5 - 0.5 = 0.25, corrected by 1 - 0.5^2 to 1/3; the
    # square is 0.75 * 2.25 + 0.25 = 1.9375, corrected by 1 - 0.75^2 = 0.4375 to 31/7.
    weight.grad = torch.tensor([[-1.0]], dtype=torch.float64)
    optimizer.step()
    expected = 1.85 - 0.1 * 0.25 * 1.85 - 0.1 * (1 / 3) / math.sqrt(31 / 7)
    torch.testing.assert_close(weight.data, torch.full_like(weight, expected), atol=1e-8, rtol=0)


def test_the_fused_form_is_chosen_where_there_is_one() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2).named_parameters(), OptimSettings(**GOOD))
    assert optimizer.defaults["fused"] is True
    on_meta = nn.Linear(2, 2, device="meta").named_parameters()
    assert build_optimizer(on_meta, OptimSettings(**GOOD)).defaults["fused"] is False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "optim.lr must be above 0 and finite, got 0.0"),
        ({"lr": math.nan}, "optim.lr must be above 0 and finite, got nan"),
        ({"betas": [0.9]}, r"optim.betas must be two numbers, .* got \[0.9\]"),
        ({"betas": [0.9, 1.0]}, r"optim.betas must be two numbers, .* got \[0.9, 1.0\]"),
        ({"weight_decay": -0.1}, "optim.weight_decay must be at least 0 and finite, got -0.1"),
        ({"warmup_steps": -1}, "optim.warmup_steps must be at least 0, got -1"),
        ({"schedule": "linear"}, "optim.schedule must be one of constant, cosine, got 'linear'"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OptimSettings(**{**GOOD, **change})
