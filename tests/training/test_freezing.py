"""Frozen parts: what stays, what trains, and what the run says of it."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.cli import main
from vqtrain.codebooks.ema import EMA
from vqtrain.errors import ConfigError, FailedError
from vqtrain.training.module import TokenizerTraining

MakeModule = Callable[..., TokenizerTraining]
Fit = Callable[..., None]
IBQ = {
    "kind": "ibq",
    "arguments": {
        "size": 8,
        "dim": 2,
        "index_weight": 0.1,
        "codebook_weight": 0.1,
        "commitment_weight": 0.1,
        "entropy_weight": 0.0,
        "entropy_temperature": 1.0,
    },
}


def changed(before: dict[str, Tensor], module: TokenizerTraining) -> set[str]:
    """Name the modules of which a tensor has changed."""
    after = module.tokenizer.state_dict()
    return {n.partition(".")[0] for n in before if not torch.equal(before[n], after[n])}


@pytest.mark.parametrize(
    ("freeze", "trained"),
    [
        (["encoder", "codebook"], {"project_out", "decoder"}),
        (["codebook"], {"encoder", "project_in", "project_out", "decoder"}),
        (["encoder"], {"project_in", "codebook", "project_out", "decoder"}),
        (["decoder"], {"encoder", "project_in", "codebook", "project_out"}),
        (["decoder", "codebook"], {"encoder", "project_in"}),
    ],
    ids=lambda value: "-".join(sorted(value)),
)
def test_what_is_frozen_stays_and_the_rest_trains(
    freeze: list[str], trained: set[str], make_module: MakeModule, fit: Fit
) -> None:
    layer = None if "decoder" not in freeze else "project_in.weight"
    module = make_module(freeze=freeze, accumulate=2, adversarial={"layer": layer})
    module.codebook_is_new = False
    before = {name: tensor.clone() for name, tensor in module.tokenizer.state_dict().items()}
    logged: list[dict[str, float]] = []

    def look(trainer: Trainer, own: TokenizerTraining) -> None:
        codebook = own.tokenizer.codebook
        assert isinstance(codebook, EMA)
        assert codebook.training == ("codebook" not in freeze)
        assert bool(codebook.samples.batches) is False  # nothing is collected, or it was used
        held = {p for each in trainer.optimizers for g in each.param_groups for p in g["params"]}
        named = own.tokenizer.named_parameters()
        assert {name.partition(".")[0] for name, p in named if p in held} == trained - {"codebook"}
        logged.append(own.logged_metrics())

    fit(module.train(), look)
    assert changed(before, module) == trained
    assert module.average is not None
    averaged = module.average.state_dict()
    assert all(torch.equal(averaged[name], before[name]) for name in module.frozen.names)
    assert not torch.equal(averaged["project_in.weight"], before["project_in.weight"]) or (
        "project_in" not in trained
    )
    is_fixed = module.frozen.keeps_ids
    assert ("train/codebook/encoder_gradient" in logged[-1]) is not is_fixed
    assert (logged[-1]["train/generator/codebook"] == 0) is is_fixed
    assert ("train/codebook/restarts" in logged[-1]) is ("codebook" not in freeze)
    line = module.frozen.conclude(module.tokenizer.state_dict(), averaged, source="a-run")
    assert line is not None
    assert f"{len(module.frozen.names)} tensors unchanged since the start from a-run" in line
    assert line.endswith("so each image keeps its token ids") is is_fixed


def test_no_graph_is_built_through_frozen_networks(make_module: MakeModule) -> None:
    module = make_module(freeze=["encoder", "codebook"]).train()
    output = module.tokenizer(torch.zeros(2, 3, 16, 16))
    assert not output.latents.requires_grad
    assert not output.quantized.z_q.requires_grad
    assert output.samples.requires_grad


def test_a_frozen_tensor_that_something_else_changes_ends_the_run(
    make_module: MakeModule, fit: Fit
) -> None:
    module = make_module(freeze=["codebook"])
    fit(module, lambda _, own: own.tokenizer.codebook.vectors.add_(1))
    with pytest.raises(FailedError, match="tensors of codebook are not those of the start"):
        module.frozen.conclude(module.tokenizer.state_dict(), source=None)
    assert make_module().frozen.conclude({}, source=None) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ["decoder", "encoder", "codebook"]}, "must leave a part to train"),
        ({"freeze": ["head"]}, "one of encoder, codebook, decoder"),
        ({"freeze": ["decoder"], "adversarial": {}}, "layer=project_in.weight is not"),
        ({"freeze": ["codebook"], "codebook": IBQ}, "in train mode alone: freeze both or none"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    settings: dict[str, object], message: str, make_module: MakeModule
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_module(**settings)


FREEZE = "trainer.freeze=[encoder,codebook]"


@pytest.mark.slow
def test_a_run_keeps_the_ids_of_the_one_it_starts_from_also_resumed(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, whole, half = (tmp_path / name for name in ("old", "whole", "half"))
    assert main(["train", *tiny, f"run_dir={old}"]) == 0
    words = ["train", *tiny, FREEZE, f"init_from={old}"]
    assert main([*words, f"run_dir={whole}"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"frozen: encoder and codebook, \d+ tensors unchanged", printed)
    assert "warning: trainer.freeze" not in printed
    half_way = whole / "checkpoints/step_00000002.ckpt"
    assert main(["train", f"resume={half_way}", f"run_dir={half}"]) == 0
    assert "keeps its token ids" in capsys.readouterr().out
    assert main(["train", f"resume={half_way}", "trainer.freeze=[encoder]"]) == 2
    assert "a resumed run cannot change trainer.freeze" in capsys.readouterr().err
    first, *others = [Tokenizer.from_pretrained(run) for run in (old, whole, half)]
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    assert all(torch.equal(first.encode(images), other.encode(images)) for other in others)
    (one, two), ids = (other.state_dict() for other in others), first.encode(images)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(first.decode(ids), others[0].decode(ids))


@pytest.mark.ddp
def test_two_ranks_train_beside_frozen_parts(
    tiny: list[str], tmp_path: Path, vqtrain: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    words = [FREEZE, "trainer.devices=2", "trainer.accumulate=2"]
    done = vqtrain("train", *tiny, *words, "trainer.max_steps=2", f"run_dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "keeps its token ids" in done.stdout
    assert "warning: trainer.freeze" in done.stdout  # as nothing of it was trained
