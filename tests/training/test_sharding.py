"""Two gloo ranks with a part of the networks each make the steps of one with all of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vqtrain.app.parts import training
from vqtrain.cli import main
from vqtrain.errors import ConfigError
from vqtrain.losses.alignment.base import Alignment
from vqtrain.objective import Objective
from vqtrain.training.module import TokenizerTraining
from vqtrain.training.sharding import check_sharding

MakeModule = Callable[..., TokenizerTraining]

STEPS, HALF, START = 20, 10, 4
WORDS = [
    "discriminator=patchgan",
    "discriminator.channels=4",
    "discriminator.num_layers=1",
    f"loss.adversarial.start_step={START}",
    "loss.adversarial.ramp_steps=3",
    "loss.adversarial.weight=0.5",
    "codebook.decay=0.8",
    "codebook.restart_below=0.5",
    "optim.lr=3.0e-3",
    "optim.weight_decay=0.1",
    "trainer.clip=0.1",
    "trainer.ema_decay=0.9",
    "trainer.precision=64-true",
    f"trainer.max_steps={STEPS}",
    f"trainer.log_every={HALF}",
    f"trainer.validate_every={HALF}",
    f"trainer.checkpoint_every={HALF}",
]
ADAPTIVE = ["loss.adversarial.adaptive=true"]
# The gradients of two batches of a rank, and a part of the networks that does not change.
ACCUMULATED = ["loss.adversarial.adaptive=false", "trainer.freeze=[encoder,codebook]"]

# Runs the command line on each rank, and notes how many elements of each parameter a rank has.
SCRIPT = """
import json
from pathlib import Path
os.environ.update(LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
sys.stdout = open(os.devnull, "w")
from vqtrain import distributed
from vqtrain.app.parts import training
from vqtrain.cli import main
from vqtrain.training.optimizers import Optimizers
from vqtrain.training.module import TokenizerTraining

update, step = Optimizers.step, TokenizerTraining.training_step
gradients, sizes = {}, {}
notes = {"sizes": sizes}

def noted_update(self, *arguments):
    for parameter in self.generator.parameters:
        gradients[parameter] = size(parameter.grad)
    return update(self, *arguments)

def noted_step(self, batch, batch_idx):
    step(self, batch, batch_idx)
    last = list(self.tokenizer.decoder.last_layer.parameters())
    notes["last"] = [
        name for name, p in self.tokenizer.named_parameters() if any(p is each for each in last)
    ]
    average, state = self.average.state_dict(), self.optim.generator.optimizer.state
    for name, p in self.tokenizer.state_dict().items():
        sizes[name] = [size(p), size(average[name]), gradients.get(p)]
    notes["optimizer"] = sorted(values["exp_avg"].numel() for values in state.values())
    notes["trained"] = sorted(map(size, self.optim.generator.parameters))

def size(tensor):
    return None if tensor is None else distributed.part_of(tensor).numel()

Optimizers.step, TokenizerTraining.training_step = noted_update, noted_step
training.write_report = lambda *_: None
for name, words in json.loads((Path(folder).parent / "words.json").read_text()).items():
    assert main(["train", *words]) == 0
    Path(folder, f"{name}-{rank}.json").write_text(json.dumps(notes))
"""


def assert_close(a: object, b: object, where: str = "") -> None:
    """Compare nested plain data, and tensors to 1e-9 with their forms; not run directories."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9, msg=where)
    elif isinstance(a, Mapping):
        assert list(a) == list(b), where
        for key in a:
            assert_close(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for x, y in zip(a, b, strict=True):
            assert_close(x, y, where)
    else:
        assert a == (pytest.approx(b, rel=1e-9) if isinstance(b, float) else b), where


def assert_same_end(run: Path, expected: Path) -> None:
    """Compare what two runs have left, the first of which may have begun later."""
    files = [
        torch.load(each / "checkpoints/last.ckpt", weights_only=True) for each in (run, expected)
    ]
    for file in files:
        del file["config"]
    assert_close(*files)
    (run, own), (expected, other) = [
        (
            [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()],
            load_file(each / "tokenizer/model.safetensors"),
        )
        for each in (run, expected)
    ]
    assert_close(own, other)
    assert_close(run[-1:], expected[-1:])


@pytest.mark.ddp
def test_parts_on_two_ranks_train_as_the_whole_does(
    tiny: list[str],
    tmp_path: Path,
    run_ranks: Callable[[str, int], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "write_report", lambda *_: None)
    one = ["data.batch_size=8"]
    two = ["trainer=fsdp", "trainer.devices=2"]
    half = f"checkpoints/step_{HALF:08d}.ckpt"

    def words(name: str, *more: str) -> list[str]:
        return [*tiny, *WORDS, *more, f"run_dir={tmp_path / name}"]

    assert main(["train", *words("whole", *one, *ADAPTIVE)]) == 0
    assert main(["train", *words("whole-frozen", *one, *ACCUMULATED)]) == 0
    runs = {
        "split": words("split", *two, *ADAPTIVE, "data.batch_size=4"),
        "joined": words(
            "joined", *two, *ADAPTIVE, "data.batch_size=4", f"resume={tmp_path / 'whole' / half}"
        ),
        "frozen": words("frozen", *two, *ACCUMULATED, "data.batch_size=2", "trainer.accumulate=2"),
    }
    (tmp_path / "words.json").write_text(json.dumps(runs))
    notes = run_ranks(SCRIPT, 2)
    assert_same_end(tmp_path / "split", tmp_path / "whole")
    assert_same_end(tmp_path / "joined", tmp_path / "whole")
    assert_same_end(tmp_path / "frozen", tmp_path / "whole-frozen")
    resumed = words("resumed", *one, *ADAPTIVE, f"resume={tmp_path / 'split' / half}")
    assert main(["train", *resumed]) == 0
    assert_same_end(tmp_path / "resumed", tmp_path / "whole")

    weights = load_file(tmp_path / "split/tokenizer/model.safetensors")
    ranks = [json.loads((notes / f"split-{rank}.json").read_text()) for rank in range(2)]
    for name, tensor in weights.items():
        (mine, *others), (yours, *yours_too) = (rank["sizes"][name] for rank in ranks)
        # The weight itself, its average and its gradient, unless it is a buffer.
        assert {*others} - {None} == {mine}, name
        assert {*yours_too} - {None} == {yours}, name
        if name.startswith(("encoder.", "decoder.")) and name not in ranks[0]["last"]:
            assert (mine + yours, 0 <= mine - yours <= tensor[0].numel()) == (tensor.numel(), True)
        else:
            assert mine == yours == tensor.numel()
    for rank in ranks:
        assert rank["optimizer"] == rank["trained"]


NETWORKS = """
import yaml
from vqtrain import distributed
from vqtrain.build import build, configs_folder, in_context, kinds, split_kind
from vqtrain.layers.block import blocks_of

small = {"channels": 8, "num_blocks": 1, "multipliers": [1, 2], "attention_factors": [2]}
small |= {"dim": 16, "depth": 2, "num_heads": 2, "num_tokens": 4, "num_codes": 7}
small |= {"model": "test_vit", "frozen": False, "time_strides": [2], "head_dim": 8}
context = {"in_channels": 3, "out_channels": 3, "sample_size": (32, 32), "weights": {}}

def built(group, kind):
    config = yaml.safe_load((configs_folder() / group / f"{kind}.yaml").read_text())
    config |= {key: value for key, value in small.items() if key in config}
    part = in_context(group, split_kind({"kind": kind, **config}), context)
    torch.manual_seed(0)
    return build(group, part["kind"], part["arguments"]).double().eval()

def gradients(network, points):
    out = network(points)
    (at_points,) = torch.autograd.grad(out.sum(), points, retain_graph=True)
    out.square().mean().backward()
    distributed.average_gradients(network.parameters())
    found = [p.grad for p in network.parameters() if p.grad is not None]
    return [out, at_points, *map(distributed.whole, found)]

for group in ("encoder", "decoder"):
    for kind in kinds(group):
        whole, split = built(group, kind), built(group, kind)
        last = set() if group == "encoder" else set(split.last_layer.parameters())
        distributed.shard(split, blocks_of(split), whole=last)
        is_flat = "num_tokens" in (configs_folder() / group / f"{kind}.yaml").read_text()
        axes = len(split.downsampling if group == "encoder" else split.upsampling)
        grid = (4,) if is_flat else (2,) * axes
        if group == "decoder":
            size = (split.in_channels, *grid)
        else:
            size = (3, 32, 32) if axes == 2 else (3, *split.size(grid))
        points = torch.randn(2, *size, dtype=torch.float64, requires_grad=True)
        expected, found = gradients(whole, points), gradients(split, points)
        for a, b in zip(expected, found, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=kind)
"""


@pytest.mark.ddp
def test_every_network_works_in_parts(run_ranks: Callable[[str, int], Path]) -> None:
    run_ranks(NETWORKS, 2)


@pytest.mark.parametrize(
    ("adversarial", "accumulate", "said"),
    [
        ({"layer": "decoder.layers.0.weight"}, 1, "cannot be compared there"),
        ({}, 2, "loss.adversarial.adaptive=true does with trainer.accumulate=2"),
        ({"layer": "project_in.weight"}, 1, None),
        ({"adaptive": False}, 2, None),
    ],
)
def test_gradients_at_weights_that_are_split_are_refused(
    adversarial: dict[str, object], accumulate: int, said: str | None, make_module: MakeModule
) -> None:
    sharded = {"strategy": "fsdp", "devices": 2, "accumulate": accumulate}
    with nullcontext() if said is None else pytest.raises(ConfigError, match=said):
        make_module(adversarial=adversarial, **sharded)
    assert make_module(adversarial=adversarial, **{**sharded, "strategy": "ddp"})


@pytest.mark.parametrize(
    "setting", [{"precision": "16-mixed"}, {"ema_device": "cpu"}, {"compile": True}]
)
def test_what_parts_cannot_have_is_refused(
    setting: dict[str, object], make_module: MakeModule
) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.strategy=fsdp") as refused:
        make_module(strategy="fsdp", devices=2, **setting)
    (value,) = setting.values()
    assert str(refused.value).endswith(("or 32-true", f"got {value}"))


class Shrinking(Alignment):
    """Aligns latents with 0."""

    def forward(self, latents: Tensor, samples: Tensor, texts: Sequence[str]) -> Tensor:
        """Return their mean square."""
        del samples, texts
        return latents.square().mean()


def test_an_adaptive_alignment_of_an_inner_layer_is_refused(
    make_module: MakeModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_module()
    tokenizer, objective = module.tokenizer, module.objective
    monkeypatch.setattr(Objective, "adaptive_terms", ["alignment"])
    objective.alignment = Shrinking()
    check_sharding(module.settings, tokenizer, objective)
    objective.alignment.layer = "decoder.layers.0"
    with pytest.raises(ConfigError, match=r"loss.alignment.layer=null"):
        check_sharding(module.settings, tokenizer, objective)
