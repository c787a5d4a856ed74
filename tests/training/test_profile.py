"""What a step costs, counted in a profiler's trace."""

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from vqtrain.training.module import TokenizerTraining

START = 2
BACKWARD = "autograd::engine::evaluate_function: ConvolutionBackward0"


class Traces(Callback):
    """Profiles each step by itself, with a name on every call of the networks."""

    def __init__(self) -> None:
        self.counts: list[dict[str, int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the names on."""
        del trainer
        assert isinstance(pl_module, TokenizerTraining)
        name_calls(pl_module.tokenizer.encoder, "the encoder")
        name_calls(pl_module.tokenizer.decoder, "the decoder")
        assert pl_module.objective.discriminator is not None
        name_calls(pl_module.objective.discriminator, "the discriminator")

    def on_train_batch_start(self, *_: object) -> None:
        """Begin a trace."""
        self.profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self.profile.start()

    def on_train_batch_end(self, *_: object) -> None:
        """Count what is in it."""
        self.profile.stop()
        self.counts.append({e.key: e.count for e in self.profile.key_averages()})


def name_calls(module: nn.Module, name: str) -> None:
    forward = module.forward

    def named(*inputs: torch.Tensor) -> torch.Tensor:
        with record_function(name):
            return forward(*inputs)

    module.forward = named  # type: ignore[method-assign]  # the point of it


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in module.modules())


def test_one_forward_and_one_backward_and_no_discriminator_before_its_time(
    make_module: Callable[..., TokenizerTraining], fit: Callable[..., None]
) -> None:
    module = make_module(adversarial={"start_step": START}, max_steps=4)
    fit(module, traces := Traces())
    assert len(traces.counts) == 4
    ours = convolutions(module.tokenizer)
    assert module.objective.discriminator is not None
    its = convolutions(module.objective.discriminator)
    for step, counts in enumerate(traces.counts):
        assert counts["the encoder"] == counts["the decoder"] == 1
        if step < START:
            assert "the discriminator" not in counts
            assert counts[BACKWARD] == ours
        else:
            # It judges images and reconstructions once each, for both sides.
            assert counts["the discriminator"] == 2
            # Backward through the autoencoder once, and twice to its last weight alone; through
            # the discriminator to the pixels, and to its weights from images and reconstructions.
            assert counts[BACKWARD] == ours + 2 + 3 * its


@pytest.mark.parametrize("adaptive", [True, False])
def test_accumulation_costs_a_second_backward_where_the_weight_is_not_known(
    adaptive: bool, make_module: Callable[..., TokenizerTraining], fit: Callable[..., None]
) -> None:
    module = make_module(adversarial={"adaptive": adaptive}, accumulate=3, max_steps=1)
    fit(module, traces := Traces())
    ours = convolutions(module.tokenizer)
    assert module.objective.discriminator is not None
    once = ours + 2 + 3 * convolutions(module.objective.discriminator)
    before_last = once + ours if adaptive else once
    assert [counts[BACKWARD] for counts in traces.counts] == [before_last, before_last, once]
