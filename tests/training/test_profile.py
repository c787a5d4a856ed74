"""What a step costs, counted in a profiler's trace, and the profile that a run writes."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from vqtrain.training.module import TokenizerTraining
from vqtrain.training.profile import Profile

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


def test_a_profile_changes_no_number_and_says_where_the_time_went(
    make_module: Callable[..., TokenizerTraining], fit: Callable[..., None], tmp_path: Path
) -> None:
    plain, profiled = (
        make_module(adversarial={}, accumulate=2, max_steps=5, ema_decay=0.5) for _ in range(2)
    )
    fit(plain)
    lines: list[str] = []
    fit(profiled, profile := Profile(folder=tmp_path / "profile", say=lines.append))
    assert profile.steps == range(3, 5)  # the last two, as the run is short
    for name, tensor in profiled.state_dict().items():
        assert torch.equal(tensor, plain.state_dict()[name]), name

    with gzip.open(tmp_path / "profile/trace.json.gz") as file:
        events = json.load(file)["traceEvents"]
    counts = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    assert counts["step"] == 2
    # An encoder and the projection after it, in two batches a step.
    assert counts["part::encoder"] == counts["part::decoder"] == 2 * 2 * 2
    assert counts["part::discriminator"] == counts["part::reconstruction"] == 2 * 2

    assert lines[0] == "steps 3 to 4, on cpu"
    assert lines[-1].startswith(f"profile: {tmp_path}/profile/trace.json.gz")
    assert (tmp_path / "profile/summary.txt").read_text().splitlines() == lines[:-1]
    rows = {line.split()[0]: line.split() for line in lines[2 : lines.index("")]}
    parts = {"data", "encoder", "codebook", "decoder", "reconstruction", "discriminator"}
    assert set(rows) == parts | {"optimizer", "other", "whole"}
    for part in ("encoder", "decoder", "discriminator", "reconstruction"):
        assert float(rows[part][1]) > 0
        assert float(rows[part][3]) > 0
    shares = [float(row[-1].rstrip("%")) for part, row in rows.items() if part != "whole"]
    assert sum(shares) == pytest.approx(100, abs=0.5)


def test_a_run_that_ends_early_has_the_profile_of_its_steps(
    make_module: Callable[..., TokenizerTraining], fit: Callable[..., None], tmp_path: Path
) -> None:
    def stop(trainer: Trainer, module: TokenizerTraining) -> None:
        trainer.should_stop = module.step == 11

    lines: list[str] = []
    profile = Profile(folder=tmp_path / "profile", say=lines.append)
    fit(make_module(max_steps=100), stop, profile)
    assert profile.steps == range(10, 16)
    assert lines[0] == "steps 10 to 10, on cpu"
