"""Both sides' losses, and what stabilizes the discriminator, against formulas by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn import functional as F

from vqtrain.build import build
from vqtrain.errors import ConfigError
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight
from vqtrain.losses.parts.adversarial import (
    AdversarialTraining,
    DiscriminatorSettings,
    gradient_penalty,
)
from vqtrain.losses.parts.augmentation import augment, blurred
from vqtrain.ops.seeds import seed_for

PLAIN = DiscriminatorSettings(
    every=1,
    augment=0.0,
    cutout=0.2,
    blur_steps=0,
    lecam_weight=0.0,
    lecam_decay=0.9,
    r1_weight=0.0,
    r1_every=4,
    consistency_weight=0.0,
)
START = 4


def training(kind: str = "hinge", **settings: object) -> AdversarialTraining:
    return AdversarialTraining(
        loss=build("adversarial", kind, {}),  # type: ignore[arg-type]  # by its group
        weight=AdaptiveWeight(
            name="adversarial",
            weight=0.5,
            start_step=START,
            ramp_steps=0,
            adaptive=True,
            min_ratio=0.0,
            max_ratio=10.0,
        ),
        layer=None,
        settings=replace(PLAIN, **settings),  # type: ignore[arg-type]  # plain data
    ).double()


def logits(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


REAL, FAKE = logits(2.0, 0.5), logits(-3.0, 1.0)


def test_several_tensors_of_logits_count_alike_whatever_their_size() -> None:
    both = training()
    # Minus the mean of these is 0, that of FAKE is 1.
    large = logits(-3.0, 1.0, 1.0, 1.0).reshape(2, 1, 1, 2)
    assert both.generator([FAKE, large]).item() == 0.5
    one, other = both.discriminator([REAL], [FAKE]), both.discriminator([REAL], [large])
    assert both.discriminator([REAL, REAL], [FAKE, large]).item() == (one + other).item() / 2


def test_half_precision_is_widened() -> None:
    value = training("vanilla").discriminator([REAL.bfloat16()], [FAKE.bfloat16()])
    assert value.dtype == torch.float32


class Two(nn.Module):
    """A discriminator of two scales that is not linear, in float64."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Conv2d(3, 1, 3, stride=s) for s in (1, 2)).double()
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return two tensors of logits."""
        self.seen.append(images.detach())
        return [torch.tanh(3 * layer(images)) for layer in self.layers]


def images(count: int = 4) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    samples = torch.rand(count, 3, 16, 16).double() * 2 - 1
    return samples, (samples + 0.3 * torch.randn_like(samples)).requires_grad_()


def gradients(network: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(grad(loss, list(network.parameters()), retain_graph=True))


def test_lecam_by_its_formula_over_three_steps() -> None:
    own, network = training(lecam_weight=0.5), Two()
    samples, made = images()
    averages = [0.0, 0.0]
    for step in range(START, START + 3):
        own.begin_step(step, 0)
        found = own(network, made, samples, step)
        real, fake = network(samples), network(made)
        term = sum(
            F.relu(r - averages[1]).square().mean() + F.relu(averages[0] - f).square().mean()
            for r, f in zip(real, fake, strict=True)
        )
        expected = own.discriminator(real, fake) + 0.5 * term / 2
        assert found.discriminator.item() == pytest.approx(expected.item(), rel=1e-12)
        assert found.parts["lecam"].item() == pytest.approx(0.5 * term.item() / 2, rel=1e-12)
        for one, other in zip(
            gradients(network, found.discriminator), gradients(network, expected), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)
        if step == START + 1:  # a step that is skipped leaves the averages as they were
            own.discard_step()
            continue
        own.update()
        for side, values in enumerate((real, fake)):
            mean = sum(v.mean().item() for v in values) / 2
            averages[side] = 0.9 * averages[side] + 0.1 * mean
        assert own.state_dict()["lecam.means"].tolist() == pytest.approx(averages, rel=1e-12)
    assert averages != [0, 0]


def test_r1_by_its_definition_every_few_updates() -> None:
    own, network = training(r1_weight=10.0), Two()
    samples, made = images()
    x = samples.clone().requires_grad_()
    one, other = network(x)
    each = [(one[i].mean() + other[i].mean()) / 2 for i in range(len(x))]  # the mean logit
    norms = [grad(d, x, create_graph=True)[0].square().sum() for d in each]
    penalty = sum(norms) / len(x)
    assert gradient_penalty(network, samples).item() == pytest.approx(penalty.item(), rel=1e-12)
    plain = own.discriminator(network(samples), network(made))
    found = own(network, made, samples, START)
    expected = plain + 10 / 2 * 4 * penalty
    assert found.discriminator.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(
        gradients(network, found.discriminator), gradients(network, expected), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
    steps = range(START, START + 9)
    has = ["r1" in own(network, made, samples, step).parts for step in steps]
    assert has == [True, False, False, False] * 2 + [True]


def test_consistency_by_its_formula() -> None:
    own, network = training(consistency_weight=4.0), Two()
    samples, made = images()
    own.begin_step(START, 7)
    found = own(network, made, samples, START)
    seed = seed_for(7, "adversarial", START)
    total = own.discriminator(network(samples), network(made))
    for role, given in (("real", samples), ("fake", made.detach())):
        changed = augment(
            given,
            probability=1.0,
            cutout=0.2,
            seed=seed_for(seed, "consistency", role),
            places=range(4),
        )
        assert not torch.equal(changed, given)
        pairs = zip(network(given), network(changed), strict=True)
        total = total + 4 * sum((a - b).square().mean() for a, b in pairs) / 2
    assert found.discriminator.item() == pytest.approx(total.item(), rel=1e-12)
    for a, b in zip(
        gradients(network, found.discriminator), gradients(network, total), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


def test_both_sides_see_augmented_and_blurred_images() -> None:
    own, network = training(augment=1.0, blur_steps=4), Two()
    samples, made = images()
    own.begin_step(START + 1, 7)
    own(network, made, samples, START + 1)
    seed = seed_for(7, "adversarial", START + 1)
    for seen, given, role in zip(network.seen, (made, samples), ("fake", "real"), strict=True):
        expected = augment(
            blurred(given.detach(), 0.75),
            probability=1.0,
            cutout=0.2,
            seed=seed_for(seed, role),
            places=range(4),
        )
        torch.testing.assert_close(seen, expected, rtol=0, atol=0)
    network.seen.clear()
    training(blur_steps=4)(network, made, samples, START + 4)
    torch.testing.assert_close(network.seen[1], samples, rtol=0, atol=0)


def test_batches_of_a_step_see_what_the_joined_batch_sees() -> None:
    own, network = training(augment=0.7), Two()
    samples, made = images()
    own.begin_step(START, 0)
    own(network, made, samples, START)
    joined = network.seen[:]
    network.seen.clear()
    own.begin_step(START, 0)
    for real, fake in zip(samples.split(2), made.split(2), strict=True):
        own(network, fake, real, START)
    for side in (0, 1):
        torch.testing.assert_close(torch.cat(network.seen[side::2]), joined[side], rtol=0, atol=0)


def test_the_discriminator_may_be_updated_now_and_then() -> None:
    own, network = training(every=3, r1_weight=1.0, r1_every=2), Two()
    samples, made = images()
    steps = range(START - 1, START + 7)
    updated = [own.updates_discriminator(step) for step in steps]
    assert updated == [False, True, False, False, True, False, False, True]
    for step, expected in zip(steps, updated, strict=True):
        if step >= START:
            found = own(network, made, samples, step)
            assert (found.discriminator is not None) == expected
            # Of the updates, every second one.
            assert ("r1" in found.parts) == (step in (START, START + 6))
            assert found.generator.requires_grad


RANKS = """
import sys
sys.path.insert(0, {folder!r})
from vqtrain import distributed
from test_adversarial import START, Two, images, training
own, network = training(lecam_weight=0.5, augment=0.5), Two()
optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
samples, made = images()
part = slice(None) if world_size == 1 else slice(2 * rank, 2 * rank + 2)
for step in range(START, START + 50):
    own.begin_step(step, 0)
    terms = own(network, made.detach()[part], samples[part], step)
    optimizer.zero_grad()
    terms.discriminator.backward()
    for parameter in network.parameters():
        parameter.grad = distributed.all_reduce_sum(parameter.grad) / world_size
    optimizer.step()
    own.update()
torch.save([*own.state_dict().values(), *network.state_dict().values()], f"{{folder}}/{{rank}}.pt")
"""


@pytest.mark.ddp
def test_two_ranks_equal_one_with_the_joined_batch(run_ranks: Callable[[str, int], Path]) -> None:
    script = RANKS.format(folder=str(Path(__file__).parent))
    one = torch.load(run_ranks(script, 1) / "0.pt")
    two = run_ranks(script, 2)
    assert one[0].abs().min() > 1e-3
    for rank in range(2):
        torch.testing.assert_close(torch.load(two / f"{rank}.pt"), one, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 0}, "loss.discriminator.every must be at least 1, got 0"),
        ({"augment": 1.5}, r"augment must be in \[0, 1\], got 1.5"),
        ({"lecam_decay": 1.0}, r"lecam_decay must be in \[0, 1\), got 1.0"),
        ({"r1_weight": -1.0}, "r1_weight must be at least 0 and finite, got -1.0"),
        ({"r1_every": 0}, "r1_every must be at least 1, got 0"),
    ],
)
def test_impossible_values_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **changes)  # type: ignore[arg-type]  # plain data


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown kind 'wgan', valid are: hinge, non_sat"):
        training("wgan")
