"""The loss scale of 16-mixed: what it saves, and what it skips."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from vqtrain.losses.parts.lecam import LeCam
from vqtrain.losses.parts.weight_ramp import Weight
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.stopping import MAX_SKIPPED_IN_ROW

MakeModule = Callable[..., TokenizerTraining]
Fit = Callable[..., None]


class Scale(Callback):
    """Sets the loss scale before the first step, and notes it after each."""

    def __init__(self, value: float, interval: int = 2000) -> None:
        self.value, self.interval = value, interval
        self.values: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set it."""
        del trainer
        assert isinstance(pl_module, TokenizerTraining)
        scaler = pl_module.optim.scaler
        state = {"scale": self.value, "growth_interval": self.interval}
        scaler.load_state_dict({**scaler.state_dict(), **state})

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: object, **__: object
    ) -> None:
        """Note it."""
        del trainer
        assert isinstance(pl_module, TokenizerTraining)
        self.values.append(pl_module.optim.metrics(0)["train/loss_scale"])


class Gradients(Callback):
    """Notes the gradients with which the first step is made."""

    def __init__(self) -> None:
        self.of: dict[str, Tensor] = {}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note them."""
        del trainer
        names = {id(p): name for name, p in pl_module.named_parameters()}
        for group in optimizer.param_groups:
            for p in group["params"]:
                self.of[names[id(p)]] = p.grad.clone()


def adversarial_module(
    make_module: MakeModule, *, precision: str, clip: float | None = None, **settings: object
) -> TokenizerTraining:
    """Make a module whose reconstruction gradients underflow in float16 if they are not scaled."""
    module = make_module(
        adversarial={"weight": 0.5}, precision=precision, clip=clip, max_steps=1, **settings
    )
    term = module.objective.terms["reconstruction"]
    weight = Weight(name="reconstruction", weight=2e-5, start_step=0, ramp_steps=0)
    module.objective.terms["reconstruction"] = replace(term, weight=weight)
    adversarial = module.objective.adversarial
    more = {"augment": 0.5, "lecam_weight": 0.1, "r1_weight": 0.1, "consistency_weight": 0.5}
    adversarial.settings = replace(adversarial.settings, r1_every=1, **more)
    adversarial.lecam = LeCam(decay=0.5)
    return module


@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_too_small_for_float16_are_those_of_float32(
    accumulate: int, make_module: MakeModule, fit: Fit
) -> None:
    found: dict[str, dict[str, Tensor]] = {}
    logged: dict[str, dict[str, float]] = {}
    # Less than the norm of the generator, so that clipping the scaled gradients would show.
    for precision in ("32-true", "16-mixed"):
        module = adversarial_module(
            make_module, precision=precision, accumulate=accumulate, clip=0.1
        )
        fit(module, gradients := Gradients())
        assert module.optim.skipped_steps == 0
        found[precision], logged[precision] = gradients.of, module.logged_metrics()
    exact, half = found.values()
    assert len(exact) == len(half) == len(list(module.parameters()))
    assert exact["tokenizer.decoder.layers.0.weight"].abs().max() < 2**-25  # 0 in float16
    for name, expected in exact.items():
        assert (half[name] - expected).norm() < 0.03 * expected.norm(), name
    generator = [gradient for name, gradient in half.items() if name.startswith("tokenizer")]
    assert torch.stack([g.norm() for g in generator]).norm().item() == pytest.approx(0.1, rel=1e-4)
    assert logged["16-mixed"].pop("train/loss_scale") == 2**16
    assert logged["16-mixed"] == pytest.approx(logged["32-true"], rel=0.03, abs=1e-6)


def test_a_scale_that_is_too_high_skips_steps_and_ends_no_run(
    make_module: MakeModule, fit: Fit
) -> None:
    module = make_module(precision="16-mixed", max_steps=30)
    before = [parameter.clone() for parameter in module.parameters()]
    states: list[tuple[bool, int, int]] = []

    def note(trainer: Trainer, training: TokenizerTraining) -> None:
        del trainer
        moved = not all(map(torch.equal, before, training.parameters()))
        states.append((moved, training.optim.skipped_steps, training.optim.skipped_in_row))

    fit(module, note, scale := Scale(2.0**44, interval=3))
    first = next(step for step, (moved, _, _) in enumerate(states) if moved)
    assert first > MAX_SKIPPED_IN_ROW
    assert states[first - 1] == (False, first, 0)
    low = 2.0 ** (44 - first)
    assert scale.values[:first] == [2.0 ** (43 - step) for step in range(first)]
    # Three good steps double it.
    assert scale.values[first : first + 3] == [low, low, 2 * low]


def test_gradients_that_are_never_finite_do_end_it(make_module: MakeModule, fit: Fit) -> None:
    module = make_module(precision="16-mixed", max_steps=6)
    last = list(module.tokenizer.parameters())[-1]
    last.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[no-untyped-call]  # torch's
    fit(module, scale := Scale(4.0))
    assert scale.values == [2.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    assert (module.optim.skipped_steps, module.optim.skipped_in_row) == (6, 4)
