"""The contract of each group: every kind keeps it, and what breaks it is named.

Codebooks, metrics and formats have contract tests of their own, which also compare ranks and files.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqtrain.app import contract as command_contract
from vqtrain.app.base import Command
from vqtrain.build import build, kinds
from vqtrain.decoders import contract as decoder_contract
from vqtrain.decoders.base import Decoder
from vqtrain.discriminators import contract as discriminator_contract
from vqtrain.discriminators.base import Discriminator
from vqtrain.encoders import contract as encoder_contract
from vqtrain.encoders.base import Encoder
from vqtrain.errors import ConfigError
from vqtrain.latent_noise import contract as latent_noise_contract
from vqtrain.launchers import contract as launcher_contract
from vqtrain.launchers.base import Ended, Launcher
from vqtrain.layers import classifiers
from vqtrain.layers.promises import SIZES, size_for
from vqtrain.losses import contract as loss_contract
from vqtrain.losses.adversarial import contract as adversarial_contract
from vqtrain.losses.adversarial.base import AdversarialLoss
from vqtrain.losses.alignment import contract as alignment_contract
from vqtrain.losses.base import LossTerm
from vqtrain.weights import without_downloads

CHECKS: dict[str, Callable[..., None]] = {
    "encoder": encoder_contract.check,
    "decoder": decoder_contract.check,
    "latent_noise": latent_noise_contract.check,
    "discriminator": discriminator_contract.check,
    "loss": loss_contract.check,
    "adversarial": adversarial_contract.check,
    "alignment": alignment_contract.check,
    "launcher": launcher_contract.check,
    "command": command_contract.check,
}
# Those that start a cluster on this machine.
MARKS = {"slurm": [pytest.mark.slow], "ray": [pytest.mark.soak]}


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        pytest.param(group, kind, marks=MARKS.get(kind, []))
        for group in CHECKS
        for kind in kinds(group)
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of submitit
def test_every_kind_keeps_the_contract_of_its_group(
    group: str,
    kind: str,
    small_part: Callable[[str, str], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classifiers, "SIZE", (32, 32))
    part = small_part(group, kind)
    sizes = {"grid": (4,)} if group == "decoder" and "num_tokens" in part["arguments"] else {}
    with without_downloads():
        built = build(group, part["kind"], part["arguments"])
    CHECKS[group](built, **sizes)


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        (group, kind)
        for group in ("encoder", "decoder", "discriminator")
        for kind in kinds(group)
        if kind != "identity"  # which computes nothing
    ],
)
def test_every_network_runs_in_bfloat16(
    group: str, kind: str, small_part: Callable[[str, str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "SIZE", (32, 32))
    part = small_part(group, kind)
    with without_downloads():
        network = build(group, part["kind"], part["arguments"]).eval()
    torch.manual_seed(0)
    if kind == "rectifier":  # which begins as the identity map
        torch.nn.init.normal_(network.last_layer.weight, std=0.1)
    if group == "decoder":
        axes = 1 if "num_tokens" in part["arguments"] else len(network.upsampling)
        grid = (4,) * axes
        inputs = torch.randn(2, network.in_channels, *grid)
    else:
        size = SIZES[len(network.downsampling)] if group == "encoder" else size_for(network)
        inputs = torch.rand(2, 3, *size) * 2 - 1

    def joined(found: Tensor | list[Tensor]) -> Tensor:
        return torch.cat([each.float().flatten() for each in found])

    exact = joined(network(inputs))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = joined(network(inputs))
    # On a CPU torch's own kernels: oneDNN's gradients of small three-dimensional convolutions in
    # bfloat16 are of memory that nothing was written to.
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.mkldnn, "enabled", inputs.ndim < 5)
        mixed.square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    found = {"mixed": mixed}
    if group != "discriminator":  # which is used in training alone
        with torch.no_grad():
            found["narrow"] = joined(network.bfloat16()(inputs.bfloat16()))
    for values in found.values():
        assert 0 < (values - exact).norm() < 0.2 * exact.norm()


class Halving(Encoder):
    """An encoder of sounds that keeps the contract."""

    out_channels, downsampling = 4, (2,)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(1, 4, 2, stride=2)

    def forward(self, samples: Tensor) -> Tensor:
        """Encode."""
        return self.layer(samples)


class Upside(Halving):
    """The latents depend on the batch."""

    def forward(self, samples: Tensor) -> Tensor:
        """Encode, less the mean of the batch."""
        return super().forward(samples) - samples.mean()


class Quartering(Halving):
    """The latents have another grid."""

    def forward(self, samples: Tensor) -> Tensor:
        """Encode every second position."""
        return super().forward(samples)[..., ::2]


class Doubling(Decoder):
    """A decoder of sounds that keeps the contract."""

    in_channels, upsampling = 4, (2,)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ConvTranspose1d(4, 1, 2, stride=2)

    @property
    def last_layer(self) -> nn.Module:
        """The only one."""
        return self.layer

    def forward(self, z_q: Tensor) -> Tensor:
        """Decode."""
        return self.layer(z_q)


class Shy(Doubling):
    """The last layer is not the one that is used."""

    @property
    def last_layer(self) -> nn.Module:
        """Another one."""
        return nn.Linear(1, 1)


class One(Discriminator):
    """A discriminator of sounds whose logits are no list."""

    def forward(self, samples: Tensor) -> Any:
        """Sum up."""
        return samples.flatten(1).sum(1)[:, None]


class Deaf(Discriminator):
    """A discriminator that gives no gradient."""

    def forward(self, samples: Tensor) -> list[Tensor]:
        """Look at nothing."""
        return [samples.new_zeros(len(samples), 1, requires_grad=True)]


class Sum(LossTerm):
    """A sum where a mean is promised."""

    def forward(self, reconstructions: Tensor, samples: Tensor) -> Tensor:
        """Add up."""
        return (reconstructions - samples).abs().sum()


class Backwards(AdversarialLoss):
    """Both sides want the opposite of what they should."""

    def generator(self, fake: Tensor) -> Tensor:
        """Lower the logits."""
        return fake.mean()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Raise the logits of fakes."""
        return real.mean() - fake.mean()


class Twice(Launcher):
    """Says of each job twice that it is done."""

    def launch(self, jobs: Any, *, done: Any, **_: Any) -> None:  # type: ignore[override]
        """Launch nothing."""
        for job in [*jobs, *jobs]:
            done(job, Ended(code=0, reason=""))


class Unsaid(Command):
    """Has a key that its help does not explain."""

    def run(self, *, count: int = 1) -> int:
        """Count."""
        return count


class Untyped(Command):
    """Has a key without a type."""

    def run(self, *, count=1):  # type: ignore[no-untyped-def]
        """Count."""
        return count


class Wrong(Command):
    """Has a default that is no number."""

    def run(self, *, count: int = "1") -> int:  # type: ignore[assignment]
        """Count.

        Args:
            count: A number.
        """
        return count


def test_sounds_keep_the_contracts() -> None:
    encoder_contract.check(Halving(), in_channels=1)
    decoder_contract.check(Doubling(), out_channels=1)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: encoder_contract.check(Upside(), in_channels=1), "must not depend on the others"),
        (
            lambda: encoder_contract.check(Quartering(), in_channels=1),
            r"latents must be .* of shape \[2, 4, 4\], got",
        ),
        (lambda: decoder_contract.check(Shy(), out_channels=1), "last_layer must have a weight"),
        (lambda: discriminator_contract.check(One()), "must return a list of logits, got Tensor"),
        (lambda: discriminator_contract.check(Deaf()), "the gradient must reach the samples"),
        (lambda: loss_contract.check(Sum()), "the loss must be a mean over samples"),
        (lambda: launcher_contract.check(Twice()), "done must be called once for each job"),
        (lambda: command_contract.check(Unsaid()), "the help must say what count means"),
        (lambda: command_contract.check(Untyped()), "count of run must be .* with a type"),
        (lambda: command_contract.check(Wrong()), "count must be a whole number, got '1'"),
        (lambda: adversarial_contract.check(Backwards()), "the generator must raise the logits"),
    ],
)
def test_the_first_broken_promise_is_named(check: Callable[[], None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check()


def test_a_check_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    encoder_contract.check(Halving(), in_channels=1)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), expected)
