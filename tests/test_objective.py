"""The terms of the objective by hand, and its gradients against plain autograd."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.build import build
from vqtrain.codebooks.base import Quantized
from vqtrain.discriminators.base import Discriminator
from vqtrain.discriminators.multiperiod import MultiPeriod
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.errors import ConfigError
from vqtrain.losses.alignment.base import Alignment
from vqtrain.losses.base import LossTerm
from vqtrain.losses.l1 import L1
from vqtrain.losses.l2 import L2
from vqtrain.losses.parts.adaptive_weight import AdaptiveWeight
from vqtrain.losses.parts.adversarial import AdversarialTraining, DiscriminatorSettings
from vqtrain.losses.parts.balancer import BalancerSettings
from vqtrain.losses.parts.terms import Terms
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.objective import Objective, WeightedAlignment, WeightedTerm
from vqtrain.tokenizer.reconstruction import Reconstruction
from vqtrain.training.accumulation import Accumulation

START = 2
KINDS = {"non_saturating": {"discriminator_loss": "cross_entropy", "image_means": False}}
PLAIN = DiscriminatorSettings(
    every=1,
    augment=0.0,
    cutout=0.2,
    blur_steps=0,
    lecam_weight=0.0,
    lecam_decay=0.9,
    r1_weight=0.0,
    r1_every=1,
    consistency_weight=0.0,
)


def term(
    name: str, loss: LossTerm, weight: float, start_step: int = 0, ramp_steps: int = 0
) -> WeightedTerm:
    return WeightedTerm(
        loss=loss,
        weight=Weight(name=name, weight=weight, start_step=start_step, ramp_steps=ramp_steps),
    )


def weight(name: str, value: float, start_step: int) -> AdaptiveWeight:
    return AdaptiveWeight(
        name=name,
        weight=value,
        start_step=start_step,
        ramp_steps=0,
        adaptive=True,
        min_ratio=0.0,
        max_ratio=100.0,
    )


def objective(
    discriminator: Discriminator | None,
    *others: WeightedTerm,
    kind: str = "hinge",
    settings: Mapping[str, object] | None = None,
    alignment: WeightedAlignment | None = None,
    adaptive: bool = True,
    feature_weight: float = 0.0,
    balancer: BalancerSettings | None = None,
) -> Objective:
    return Objective(
        terms=[term("reconstruction", L1(), 4.0), *others],
        discriminator=discriminator,
        adversarial=AdversarialTraining(
            loss=build("adversarial", kind, KINDS.get(kind, {})),  # type: ignore[arg-type]  # by its group
            weight=replace(weight("adversarial", 0.5, START), adaptive=adaptive),
            layer=None,
            settings=replace(PLAIN, **(settings or {})),  # type: ignore[arg-type]  # plain data
            feature_weight=feature_weight,
        ),
        alignment=alignment,
        balancer=balancer,
    )


def reconstruction(images: Tensor, codebook_loss: Tensor) -> Reconstruction:
    quantized = Quantized(
        z_q=torch.zeros(2, 1, 1, 1),
        token_ids=torch.zeros(2, 1, 1, 1, dtype=torch.int64),
        loss=codebook_loss,
    )
    return Reconstruction(samples=images, quantized=quantized, latents=images)


def test_the_total_is_the_sum_of_what_is_logged_and_alone_has_a_gradient() -> None:
    images = torch.zeros(2, 3, 4, 4)
    made = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    codebook_loss = torch.tensor(0.25, requires_grad=True)
    terms = objective(None)(images, reconstruction(made, codebook_loss), {}, 9, is_last=True)
    # 4 * |0.5 - 0| = 2, and 2 + 0.25 = 2.25.
    assert {name: part.item() for name, part in terms.logged(terms).items()} == {
        "generator/reconstruction": 2.0,
        "generator/codebook": 0.25,
        "generator/total": 2.25,
    }
    assert terms.total.item() == pytest.approx(2.25)
    assert not any(part.requires_grad for part in terms.parts.values())
    terms.total.backward()
    assert codebook_loss.grad is not None
    assert codebook_loss.grad.item() == 1.0
    assert made.grad is not None
    # The mean is over 2 * 3 * 4 * 4 = 96 values: each has the gradient 4 / 96.
    torch.testing.assert_close(made.grad, torch.full_like(made, 4 / 96))


def test_any_number_of_terms_is_added_up_each_from_its_own_step_on() -> None:
    images, made = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    codebook_loss = torch.tensor(0.25, requires_grad=True)
    target = objective(None, term("squared", L2(), 2.0, start_step=3, ramp_steps=2))
    found = {}
    for step in (2, 3, 4):
        made.grad = None
        output = reconstruction(made, codebook_loss)
        terms = target(images, output, {}, step, is_last=True)
        terms.total.backward()
        assert made.grad is not None
        found[step] = terms.parts.get("generator/squared"), made.grad[0, 0, 0, 0].item() * 96
    # 2 * 0.5^2 = 0.5, of which the first step of the ramp has a half. Gradients of each of the 96
    # values: 4 of the first term, and 2 * 2 * 0.5 = 2 of the second.
    assert found[2] == (None, pytest.approx(4))
    assert found[3] == (0.25, pytest.approx(5))
    assert found[4] == (0.5, pytest.approx(6))


def test_an_objective_without_a_term_at_its_first_step_is_refused() -> None:
    with pytest.raises(ConfigError, match="no term that compares reconstructions from step 0 on"):
        Objective(
            terms=[term("late", L1(), 1.0, start_step=1)],
            discriminator=None,
            adversarial=objective(None).adversarial,
        )


class Setting:
    """A decoder of one convolution, images, and a discriminator, all in float64."""

    def __init__(self, norm: str) -> None:
        torch.manual_seed(1)
        self.latents = torch.randn(2, 5, 16, 16).double()
        self.images = torch.randn(2, 3, 16, 16).double()
        self.encoder = nn.Conv2d(5, 5, 1).double()
        self.decoder = nn.Conv2d(5, 3, 3, padding=1).double()
        self.discriminator = PatchGAN(in_channels=3, channels=8, num_layers=2, norm=norm).double()
        self.codebook_loss = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)

    @property
    def layers(self) -> dict[str, Tensor]:
        """The weights of the last layer, and of the last one before the codebook."""
        return {"adversarial": self.decoder.weight, "alignment": self.encoder.weight}

    def gradients(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return those of the decoder and those of the discriminator."""
        generator = [p.grad for p in self.decoder.parameters() if p.grad is not None]
        discriminator = [p.grad for p in self.discriminator.parameters() if p.grad is not None]
        return generator, discriminator


def weighted_sum(terms: Terms) -> Tensor:
    total = terms.total
    for each in terms.balanced.values():
        assert each.weight is not None
        total = total + each.weight * each.loss
    return total


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
@pytest.mark.parametrize("kind", ["hinge", "vanilla", "non_saturating"])
def test_each_network_is_moved_by_its_own_terms_alone(norm: str, kind: str) -> None:
    ours, plain = Setting(norm), Setting(norm)
    target = objective(ours.discriminator, kind=kind).double()
    output = reconstruction(ours.decoder(ours.latents), ours.codebook_loss)
    terms = target(ours.images, output, ours.layers, START, is_last=True)
    weighted_sum(terms).backward()

    # The textbook's way: two backward passes, the discriminator frozen in the first.
    made = plain.decoder(plain.latents)
    plain.discriminator.requires_grad_(False)
    compared = 4 * (made - plain.images).abs().mean()
    adversarial = target.adversarial.generator(plain.discriminator(made))
    per_term = [
        torch.autograd.grad(term, plain.decoder.weight, retain_graph=True)[0]
        for term in (compared, adversarial)
    ]
    norms = [gradient.norm().item() for gradient in per_term]
    weight = 0.5 * min(norms[0] / (norms[1] + 1e-4), 100.0)  # max_ratio=100
    (compared + weight * adversarial).backward()
    plain.discriminator.requires_grad_(True)
    real, fake = plain.discriminator(plain.images), plain.discriminator(made.detach())
    loss = target.adversarial.discriminator(real, fake)
    loss.backward()

    for found, expected in zip(ours.gradients(), plain.gradients(), strict=True):
        assert len(expected) > 0
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    logged = {name: part.item() for name, part in terms.logged(terms).items()}
    assert logged["generator/adversarial"] == pytest.approx(weight * adversarial.item())
    assert logged["discriminator/total"] == pytest.approx(loss.item())
    assert logged["discriminator/logits_real"] == pytest.approx(real[0].mean().item())
    assert logged["discriminator/logits_fake"] == pytest.approx(fake[0].mean().item())
    assert logged["generator/total"] == pytest.approx(
        (compared + weight * adversarial).item() + 0.25
    )
    assert terms.total.item() == pytest.approx((compared + loss).item() + 0.25)
    balance = {name: value.item() for name, value in terms.balances.items()}
    assert balance["adversarial/reconstruction_gradient"] == pytest.approx(norms[0], rel=1e-9)
    assert balance["adversarial/gradient"] == pytest.approx(norms[1], rel=1e-9)


class Sounds:
    """A decoder of one convolution, sounds, and a discriminator with features, in float64."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.latents, self.sounds = torch.randn(3, 2, 40).double(), torch.randn(3, 1, 40).double()
        self.decoder = nn.Conv1d(2, 1, 3, padding=1).double()
        self.discriminator = MultiPeriod(
            in_channels=1, channels=1, periods=[2, 3], sample_size=(40,)
        ).double()
        self.codebook_loss = torch.tensor(0.25, dtype=torch.float64, requires_grad=True)

    def terms(self, target: Objective, step: int) -> Terms:
        """Compute a step of one batch."""
        output = reconstruction(self.decoder(self.latents), self.codebook_loss)
        layers = {"adversarial": self.decoder.weight}
        return target(self.sounds, output, layers, step, is_last=True)


def feature_distance(network: MultiPeriod, made: Tensor, sounds: Tensor) -> Tensor:
    """The mean over networks of the mean over maps of the mean absolute difference."""
    fake, real = network.judge(made).features, network.judge(sounds).features
    per_network = [
        sum((f - r.detach()).abs().mean() for f, r in zip(*maps, strict=True)) / len(maps[0])
        for maps in zip(fake, real, strict=True)
    ]
    return sum(per_network) / len(per_network)


@pytest.mark.parametrize("every", [1, 2])
def test_features_are_matched_by_the_generator_alone(every: int) -> None:
    setting = Sounds()
    target = objective(
        setting.discriminator, settings={"every": every}, adaptive=False, feature_weight=3.0
    ).double()
    step = START + every - 1  # at which the discriminator is updated, or not
    terms = setting.terms(target, step)
    weighted_sum(terms).backward()
    found = setting.decoder.weight.grad
    of_discriminator = [p.grad for p in setting.discriminator.parameters()]

    network, sounds, made = setting.discriminator, setting.sounds, setting.decoder(setting.latents)
    features = feature_distance(network, made, sounds)
    adversarial = target.adversarial.generator(network(made))
    total = 4 * (made - sounds).abs().mean() + 0.5 * adversarial + 3 * features
    (expected,) = torch.autograd.grad(total, setting.decoder.weight)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)
    assert terms.logged(terms)["generator/features"].item() == pytest.approx(3 * features.item())
    if every == 2:
        assert of_discriminator == [None] * len(of_discriminator)
        return
    loss = target.adversarial.discriminator(network(sounds), network(made.detach()))
    plain = torch.autograd.grad(loss, list(network.parameters()))
    torch.testing.assert_close(of_discriminator, list(plain), rtol=1e-10, atol=1e-14)


def test_balanced_terms_are_added_by_their_shares_in_one_pass() -> None:
    setting = Sounds()
    target = objective(
        setting.discriminator,
        term("squared", L2(), 2.0),
        adaptive=False,
        feature_weight=3.0,
        balancer=BalancerSettings(enabled=True, decay=0.9, norm=5.0),
    ).double()
    passes: list[Tensor] = []
    setting.decoder.weight.register_hook(passes.append)
    first = setting.terms(target, START)
    assert first.logged(first)["generator/total"].item() == 0.25  # nothing but the codebook's
    target.update()
    terms = setting.terms(target, START)
    weighted_sum(terms).backward()
    assert len(passes) == 1

    network, sounds, made = setting.discriminator, setting.sounds, setting.decoder(setting.latents)
    losses = {
        "reconstruction": (4.0, (made - sounds).abs().mean()),
        "squared": (2.0, (made - sounds).square().mean()),
        "adversarial": (0.5, target.adversarial.generator(network(made))),
        "features": (3.0, feature_distance(network, made, sounds)),
    }
    gradient = torch.zeros_like(made)
    for name, (share, loss) in losses.items():
        (own,) = torch.autograd.grad(loss, made, retain_graph=True)
        norm = 3 * own.flatten(1).norm(dim=1).mean()  # of three samples
        factor = 5 * share / 9.5 / (norm + 1e-12)
        gradient += factor * own
        logged = terms.logged(terms)[f"generator/{name}"].item()
        assert logged == pytest.approx((factor * loss).item())
    (expected,) = torch.autograd.grad(made, setting.decoder.weight, gradient)
    torch.testing.assert_close(setting.decoder.weight.grad, expected, rtol=1e-9, atol=1e-14)
    assert setting.codebook_loss.grad is not None
    assert setting.codebook_loss.grad.item() == 1.0  # beside the balancer


def test_terms_are_balanced_in_one_way_and_features_are_offered() -> None:
    setting = Setting("group")
    enabled = BalancerSettings(enabled=True, decay=0.9, norm=1.0)
    with pytest.raises(ConfigError, match=r"loss.balancer.enabled and loss.adversarial.adaptive"):
        objective(setting.discriminator, balancer=enabled)
    assert objective(None, balancer=enabled).balancer is not None
    assert objective(None, balancer=replace(enabled, enabled=False)).balancer is None
    with pytest.raises(ConfigError, match="feature_weight must be 0: this discriminator has no"):
        objective(setting.discriminator, feature_weight=1.0)


def test_before_its_start_the_discriminator_is_not_run() -> None:
    setting = Setting("group")
    target = objective(setting.discriminator).double()

    def fail(*_: object) -> None:
        raise AssertionError("the discriminator is run")

    setting.discriminator.register_forward_pre_hook(fail)
    made = setting.decoder(setting.latents)
    output = reconstruction(made, setting.codebook_loss)
    terms = target(setting.images, output, setting.layers, START - 1, is_last=True)
    assert not any("adversarial" in name or "discriminator" in name for name in terms.logged(terms))
    assert terms.balanced == terms.balances == {}
    terms.total.backward()
    assert setting.gradients()[1] == []
    with pytest.raises(AssertionError, match="is run"):
        target(setting.images, output, setting.layers, START, is_last=True)


def test_under_autocast_gradients_and_norms_are_float32() -> None:
    torch.manual_seed(0)
    decoder, discriminator = (
        nn.Conv2d(5, 3, 3, padding=1),
        PatchGAN(in_channels=3, channels=8, num_layers=1, norm="group"),
    )
    target = objective(discriminator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = decoder(torch.randn(2, 5, 16, 16))
        assert made.dtype == torch.bfloat16
        images = torch.randn(2, 3, 16, 16)
        output = reconstruction(made, torch.zeros(()))
        terms = target(images, output, {"adversarial": decoder.weight}, START, is_last=True)
    assert {part.dtype for part in terms.logged(terms).values()} == {torch.float32}
    weighted_sum(terms).backward()
    assert {value.dtype for value in terms.balances.values()} == {torch.float32}


class Towards(Alignment):
    """Compares projected latents with the means of a sample's patches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.projection = nn.Conv2d(5, 3, 1)

    def forward(self, latents: Tensor, samples: Tensor, texts: Sequence[str]) -> Tensor:
        """Return a mean of squares."""
        del texts
        return (self.projection(latents) - samples.mean((2, 3), keepdim=True)).square().mean()


@pytest.mark.parametrize(("batches", "scale"), [(1, 1.0), (2, 4096.0)])
def test_all_terms_at_once_give_the_gradients_of_the_textbook(batches: int, scale: float) -> None:
    settings = {
        "augment": 0.7,
        "lecam_weight": 0.3,
        "r1_weight": 5.0,
        "consistency_weight": 4.0,
        "blur_steps": 4,
    }
    ours, plain = Setting("none"), Setting("none")
    parts = []
    for setting in (ours, plain):
        alignment = WeightedAlignment(loss=Towards(), weight=weight("alignment", 0.25, 1))
        other = term("squared", L2(), 2.0)
        parts.append(
            objective(setting.discriminator, other, settings=settings, alignment=alignment).double()
        )
    target, reference = parts
    assert target.alignment is not None
    assert reference.alignment is not None

    def output(setting: Setting, latents: Tensor) -> Reconstruction:
        z = setting.encoder(latents)
        ids = torch.zeros(len(z), 1, 1, 1, dtype=torch.int64)
        quantized = Quantized(z_q=z, token_ids=ids, loss=z.square().mean())
        return Reconstruction(samples=setting.decoder(z), quantized=quantized, latents=z)

    # Twice, so that LeCam has averages.
    for step in (START, START + 1):
        trained = [
            *(ours.encoder, ours.decoder, target.alignment, ours.discriminator),
            *(plain.encoder, plain.decoder, reference.alignment, plain.discriminator),
        ]
        for module in trained:
            module.zero_grad()
        target.begin_step(step, 0)
        inner = [p for m in trained[:3] for p in m.parameters()]
        accumulation = Accumulation(inner, batches)
        pairs = zip(ours.latents.chunk(batches), ours.images.chunk(batches), strict=True)
        for number, (latents, images) in enumerate(pairs, start=1):
            made = output(ours, latents)
            is_last = number == batches
            terms = target(images, made, ours.layers, step, is_last=is_last, scale=scale)
            accumulation.add(terms, made, Tensor.backward, torch.tensor(scale))
        target.update()

        # The textbook's way: each network's own loss of the joined batch, one after the other.
        made = output(plain, plain.latents)
        reference.begin_step(step, 0)
        both = reference.adversarial(plain.discriminator, made.samples, plain.images, step)
        assert both.discriminator is not None
        compared = (
            4 * (made.samples - plain.images).abs().mean()
            + 2 * (made.samples - plain.images).square().mean()
        )
        aligning = reference.alignment(made.quantized.z_q, plain.images, [])
        loss = compared + made.quantized.loss
        for each, layer, share in (
            (both.generator, plain.decoder.weight, 0.5),
            (aligning, plain.encoder.weight, 0.25),
        ):
            norms = [
                torch.autograd.grad(t, layer, retain_graph=True)[0].norm() for t in (compared, each)
            ]
            ratio = (norms[0] / (norms[1] + 1e-4)).clamp(max=100.0).item()  # max_ratio
            loss = loss + share * ratio * each
        own = [p for m in trained[4:7] for p in m.parameters()]
        expected = list(torch.autograd.grad(loss, own, retain_graph=True))
        opponent = list(plain.discriminator.parameters())
        reference.begin_step(step, 0)
        detached = made.samples.detach()
        both = reference.adversarial(plain.discriminator, detached, plain.images, step)
        assert both.discriminator is not None
        expected += torch.autograd.grad(both.discriminator, opponent)
        reference.update()
        found = [p.grad / scale for m in trained[:4] for p in m.parameters()]
        for one, other_one in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other_one, rtol=1e-10, atol=1e-13)


class Spread(LossTerm):
    """A loss of images alone that is not linear in them."""

    axes = 2

    def forward(self, reconstructions: Tensor, samples: Tensor) -> Tensor:
        """Compare the deviations of images."""
        assert samples.ndim == 4
        return (reconstructions.std((1, 2, 3)) - samples.std((1, 2, 3))).square().mean()


def test_a_step_on_clips_is_the_same_however_it_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"augment": 0.7, "consistency_weight": 4.0, "blur_steps": 4}

    def run(world: int, batches: int) -> dict[str, Tensor]:
        """Return gradients of a step that 4 clips are split over ranks and batches of, averaged."""
        torch.manual_seed(2)
        clips, latents = torch.rand(4, 3, 5, 16, 16).double() * 2 - 1, torch.rand(4, 3, 5, 16, 16)
        decoder = nn.Conv3d(3, 3, 3, padding=1).double()
        discriminator = PatchGAN(in_channels=3, channels=4, num_layers=1, norm="none").double()
        monkeypatch.setattr(distributed, "world_size", lambda: world)
        losses = [term("reconstruction", L1(), 4.0), term("spread", Spread(), 9.0)]
        both = objective(None, settings=settings).adversarial
        own = Objective(
            terms=losses, discriminator=discriminator, adversarial=both, frames_per_loss=2
        ).double()
        for rank in range(world):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            own.begin_step(START, 0)
            for batch in range(batches):
                mine = [
                    x.chunk(batches)[batch].chunk(world)[rank].double() for x in (latents, clips)
                ]
                output = reconstruction(decoder(mine[0]), torch.zeros(()).double())
                layers = {"adversarial": decoder.weight}
                terms = own(mine[1], output, layers, START, is_last=True)
                weight = 0.5 * terms.balanced["adversarial"].loss
                ((terms.total + weight) / (world * batches)).backward()
        modules = {"decoder": decoder, "discriminator": discriminator}
        return {
            f"{word}.{name}": parameter.grad
            for word, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.grad is not None
        }

    expected = run(world=1, batches=1)
    assert len(expected) == 2 + 6
    for world, batches in ((2, 1), (1, 2), (2, 2)):
        torch.testing.assert_close(run(world, batches), expected, rtol=1e-9, atol=1e-12)
