"""The training step against what its parts do by themselves."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from vqtrain.codebooks.ema import EMA
from vqtrain.data.loading.batches import Batch
from vqtrain.latent_noise.base import LatentNoise
from vqtrain.losses.parts.terms import Terms
from vqtrain.objective import Objective
from vqtrain.ops.pixels import to_images
from vqtrain.training.data_module import TrainingData
from vqtrain.training.module import TokenizerTraining

MakeModule = Callable[..., TokenizerTraining]
MakeData = Callable[..., TrainingData]
Fit = Callable[..., None]


class Watch(Callback):
    """Notes the learning rate and the gradients with which the optimizer steps."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.gradients: list[list[Tensor]] = []
        self.steps: list[int] = []

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note them."""
        del trainer
        module = cast(TokenizerTraining, pl_module)
        self.rates.append([group["lr"] for group in optimizer.param_groups])
        self.gradients.append(
            [p.grad.clone() for p in module.tokenizer.parameters() if p.grad is not None]
        )
        self.steps.append(module.step)


def gradients_of(module: TokenizerTraining, batches: list[Batch]) -> list[Tensor]:
    """Work the gradient of the mean loss of some batches out by plain autograd."""
    tokenizer = copy.deepcopy(module.tokenizer)
    images = [to_images(batch.samples) for batch in batches]
    losses = []
    for image in images:
        output = tokenizer(image)
        losses.append((output.samples - image).square().mean() + output.quantized.loss)
    (sum(losses, start=torch.zeros(())) / len(losses)).backward()
    return [p.grad for p in tokenizer.parameters() if p.grad is not None]


def first(data: TrainingData, count: int) -> list[Batch]:
    batches = iter(data.first_batches())
    return [next(batches) for _ in range(count)]


def norm_of(gradients: list[Tensor]) -> float:
    return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


def test_the_learning_rate_follows_the_schedule(make_module: MakeModule, fit: Fit) -> None:
    module = make_module(optim={"lr": 0.1, "warmup_steps": 2, "schedule": "cosine"}, max_steps=6)
    fit(module, watch := Watch())
    # Warm-up 1/2 and 2/2; then (1 + cos(pi * t)) / 2 at t = 0/4, 1/4, 2/4, 3/4.
    expected = [0.05, 0.1, 0.1, 0.1 * (2 + 2**0.5) / 4, 0.05, 0.1 * (2 - 2**0.5) / 4]
    assert [rates[0] for rates in watch.rates] == pytest.approx(expected)
    assert all(rate == rates[0] for rates in watch.rates for rate in rates)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("share", [0.5, 2.0, None], ids=["clipped", "within", "no-limit"])
def test_gradients_are_those_of_the_mean_loss_and_clipped_by_their_norm(
    share: float | None, accumulate: int, make_module: MakeModule, make_data: MakeData, fit: Fit
) -> None:
    expected = gradients_of(make_module(), first(make_data(), accumulate))
    norm = norm_of(expected)
    limit = None if share is None else share * norm
    module = make_module(clip=limit, max_steps=1, accumulate=accumulate)
    fit(module, watch := Watch())
    scale = min(1.0, share or 1.0)
    for found, gradient in zip(watch.gradients[0], expected, strict=True):
        torch.testing.assert_close(found, gradient * scale, rtol=1e-4, atol=1e-7)
    # What is logged is the norm before clipping.
    assert module.window.means()["train/generator/gradient_norm"] == pytest.approx(norm, rel=1e-5)


def test_a_step_is_as_many_batches_as_are_accumulated(make_module: MakeModule, fit: Fit) -> None:
    module = make_module(accumulate=3, max_steps=2)
    seen: list[tuple[int, bool]] = []

    class Count(Callback):
        def on_train_batch_end(self, *_: object, **__: object) -> None:
            seen.append((module.step, module.step_has_ended))

    fit(module, watch := Watch(), Count())
    assert seen == [(0, False), (0, False), (1, True), (1, False), (1, False), (2, True)]
    assert watch.steps == [0, 1]


class Spoiled(Objective):
    """An objective that is not a number in some of its calls."""

    def __init__(self, objective: Objective, calls: set[int]) -> None:
        super().__init__(
            terms=list(objective.terms.values()),
            discriminator=objective.discriminator,
            adversarial=objective.adversarial,
        )
        self.calls, self.number = calls, 0

    def forward(self, *arguments: Any, **settings: Any) -> Terms:
        """Compute the terms, and spoil the total where a call is to be bad."""
        terms = super().forward(*arguments, **settings)
        self.number += 1
        if self.number - 1 not in self.calls:
            return terms
        # The gradients stay finite: the loss itself has to be looked at.
        return replace(terms, total=terms.total + float("nan"))


class Snapshots(Callback):
    """Notes all that a step may move, at the end of each."""

    def __init__(self) -> None:
        self.states: list[list[Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        """Copy it."""
        del trainer
        module = cast(TokenizerTraining, pl_module)
        if module.step_has_ended:
            self.states.append([tensor.clone() for tensor in everything(module)])


def everything(module: TokenizerTraining) -> Iterator[Tensor]:
    yield from module.tokenizer.state_dict().values()
    assert module.average is not None
    yield from module.average.state_dict().values()
    for state in module.optim.generator.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
    codebook = module.tokenizer.codebook
    assert isinstance(codebook, EMA)
    yield codebook.counts.total
    yield codebook.sums.total
    yield torch.tensor(len(codebook.samples.batches))


def are_equal(a: list[Tensor], b: list[Tensor]) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]


# Calls of the objective 2 and 3 make step 1.
@pytest.mark.parametrize("calls", [{2}, {3}], ids=["first-batch", "last-batch"])
def test_a_step_with_a_bad_batch_moves_nothing_but_the_count(
    calls: set[int], make_module: MakeModule, fit: Fit
) -> None:
    module = make_module(accumulate=2, max_steps=3)
    module.objective = Spoiled(module.objective, calls)
    fit(module, snapshots := Snapshots(), watch := Watch())
    after_0, after_1, after_2 = snapshots.states
    assert all(are_equal(after_0, after_1))
    assert not any(are_equal(after_1, after_2)[: len(list(module.tokenizer.parameters()))])
    assert watch.steps == [0, 2]
    assert (module.step, module.optim.skipped_steps, module.optim.skipped_in_row) == (3, 1, 0)
    # The mean is over the four batches of the two good steps.
    assert module.window.scalars.counts["train/generator/total"] == 4
    assert all(torch.isfinite(torch.tensor(list(module.window.means().values()))))


def test_a_gradient_that_is_not_finite_skips_the_step_too(
    make_module: MakeModule, fit: Fit
) -> None:
    module = make_module(max_steps=1)
    before = [tensor.clone() for tensor in module.tokenizer.state_dict().values()]
    last = list(module.tokenizer.parameters())[-1]
    last.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]  # torch's
    fit(module)
    assert all(are_equal(before, list(module.tokenizer.state_dict().values())))
    assert (module.step, module.optim.skipped_steps, module.optim.skipped_in_row) == (1, 1, 1)


class Counted:
    """Hands out batches and counts how many were taken."""

    def __init__(self, data: TrainingData) -> None:
        self.data, self.taken = data, 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.data.first_batches():
            self.taken += 1
            yield batch


@pytest.mark.parametrize(
    ("image_size", "batch_size", "accumulate", "batches"),
    # 4 latents for each of 8 codes are 32. An image has 4 x 4 latents at 16 px, 2 x 2 at 8 px.
    [(16, 1, 1, 2), (16, 1, 3, 3), (16, 2, 1, 1), (16, 2, 2, 2), (8, 1, 1, 8), (8, 3, 1, 3)],
)
def test_the_codebook_starts_from_whole_steps_that_hold_four_latents_a_code(
    image_size: int,
    batch_size: int,
    accumulate: int,
    batches: int,
    make_module: MakeModule,
    make_data: MakeData,
    make_trainer: Callable[..., Trainer],
) -> None:
    module = make_module(accumulate=accumulate)
    module.trainer = make_trainer([])
    data = make_data(batch_size=batch_size, image_size=image_size)
    counted = Counted(data)
    module.initialize_codebook(counted)
    assert counted.taken == batches
    assert module.tokenizer.training
    images = torch.cat([to_images(batch.samples) for batch in first(data, batches)])
    z = module.tokenizer.latents(images).detach().permute(0, 2, 3, 1).reshape(-1, 2)
    distances = (module.tokenizer.codebook_vectors[:, None] - z).norm(dim=2)
    torch.testing.assert_close(distances.min(dim=1).values, torch.zeros(8), atol=1e-6, rtol=0)


def test_a_large_codebook_starts_after_sixteen_steps(
    make_module: MakeModule,
    make_data: MakeData,
    make_trainer: Callable[..., Trainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vqtrain.training.module.LATENTS_PER_CODE", 1000)
    module = make_module(accumulate=2)
    module.trainer = make_trainer([])
    counted = Counted(make_data(batch_size=1))
    module.initialize_codebook(counted)
    assert counted.taken == 32


SIGNS = {
    "size": 16,
    "commitment_weight": 0.05,
    "entropy_weight": 0.02,
    "diversity": 1.0,
    "temperature": 0.1,
    "group_bits": 4,
}
LEVELS = {"size": None, "levels": [5, 3], "eps": 1e-3}
STARTS = {
    # Independent normal channels: all 16 combinations of signs are equally frequent.
    "lfq": (SIGNS, 16.0),
    "bsq": (SIGNS, 16.0),
    # Level 0 of 5 where |z| < atanh(0.5 / 2), or |n| < 0.511 standard deviations: 0.391 of them; 1
    # and -1 up to 1.946, 0.279 each; 2 and -2 0.026 each: an entropy of 1.268. Level 0 of 3 where
    # |n| < 1.099: 0.728; 1 and -1 0.136 each: 0.773. The exponential of the sum is 7.7.
    "fsq": (LEVELS, 7.7),
    "residual": (
        {
            "size": 16,
            "num_codebooks": 2,
            "shared": False,
            "shrink": 0.5,
            "inner": {"kind": "lfq", **SIGNS, "size": None},
        },
        16.0,
    ),
    "grouped": (
        {"size": 16, "num_codebooks": 2, "inner": {"kind": "bsq", **SIGNS, "size": None}},
        16.0,
    ),
    "multiscale": (
        {
            "size": 16,
            "scales": [4],
            "num_convolutions": 1,
            "convolution_share": 0.5,
            "convolution_weight": 1.0,
            "inner": {"kind": "lfq", **SIGNS, "size": None},
        },
        16.0,
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", STARTS)
def test_the_first_ids_are_about_as_varied_as_those_of_normal_latents(
    kind: str,
    make_module: MakeModule,
    make_data: MakeData,
    make_trainer: Callable[..., Trainer],
) -> None:
    arguments, of_normal = STARTS[kind]
    module = make_module(
        width=32, codebook={"kind": kind, "arguments": arguments}, precision="64-true"
    ).double()
    module.trainer = make_trainer([])
    images = to_images(first(make_data(batch_size=48), 1)[0].samples, torch.float64)

    def perplexity() -> float:
        ids = module.tokenizer.quantize(module.tokenizer.latents(images)).token_ids[:, 0]
        share = ids.flatten().bincount() / ids.numel()
        return torch.special.entr(share).sum().exp().item()

    before = perplexity()
    module.initialize_codebook(make_data(batch_size=48).first_batches())
    assert before < 0.2 * of_normal
    assert 0.95 * of_normal < perplexity() < of_normal


@torch.no_grad()
def test_latents_that_are_only_scaled_keep_the_directions_in_which_they_vary(
    make_module: MakeModule, make_data: MakeData, make_trainer: Callable[..., Trainer]
) -> None:
    weights = dict.fromkeys(("index_weight", "codebook_weight", "commitment_weight"), 1.0)
    ibq = {"size": 8, "dim": 2, **weights, "entropy_weight": 0.0, "entropy_temperature": 1.0}
    module = make_module(codebook={"kind": "ibq", "arguments": ibq}, precision="64-true").double()
    module.trainer = make_trainer([])
    images = to_images(first(make_data(batch_size=48), 1)[0].samples, torch.float64)

    def latents() -> Tensor:
        return module.tokenizer.latents(images).movedim(1, -1).flatten(0, -2)

    before = latents() - latents().mean(0)
    module.initialize_codebook(make_data(batch_size=48).first_batches())
    expected = before * (0.3 / before.square().mean().sqrt())
    torch.testing.assert_close(latents(), expected)


def test_without_a_decay_there_is_no_average(make_module: MakeModule) -> None:
    module = make_module(ema_decay=0.0)
    module.begin_average()
    assert module.average is None


class Counting(LatentNoise):
    """Doubles latents, and counts how often."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def change(self, z_q: Tensor, *others: object) -> Tensor:
        """Double them."""
        del others
        self.calls += 1
        return 2 * z_q


def test_latents_are_changed_in_training_alone(make_module: MakeModule, fit: Fit) -> None:
    module = make_module(max_steps=3, accumulate=2)
    module.latent_noise = noise = Counting()
    measured: list[Tensor] = []
    images = torch.rand(2, 3, 16, 16) * 2 - 1

    def measure(trainer: Trainer, training: TokenizerTraining) -> None:
        del trainer
        measured.append(training.tokenizer.reconstruct(images))
        plain = training.tokenizer(images).samples.clamp(-1, 1)
        torch.testing.assert_close(measured[-1], plain)
        changed = training.tokenizer(images, change=training.change_latents).samples
        assert not torch.allclose(changed.clamp(-1, 1), plain)
        noise.calls -= 1

    fit(module, measure)
    assert noise.calls == 6
    assert len(measured) == 3
