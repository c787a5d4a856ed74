"""What every codebook must do. A new yaml under configs/codebook joins by itself."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqtrain.build import build, configs_folder
from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.contract import check
from vqtrain.codebooks.parts.step_state import Counts
from vqtrain.codebooks.parts.vectors import straight_through
from vqtrain.errors import ConfigError, require

INTEGERS = (
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)


def test_there_are_codebooks_to_check() -> None:
    assert len(list((configs_folder() / "codebook").glob("*.yaml"))) >= 12


def test_the_contract_is_kept(codebook: Codebook) -> None:
    check(codebook)


class _Signs(Codebook):
    """A small codebook of a stranger, which keeps the contract: signs times their mean length."""

    size, dim, num_codebooks = 2, 1, 1
    id_order, selection_rule = "1 where positive", "sign"
    length: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("length", torch.ones(()))
        self.sums = Counts(1, 1)

    def forward(self, z: Tensor) -> Quantized:
        if self.training:
            vectors = z.detach().flatten()[:, None]
            self.sums.add(torch.zeros(len(vectors), dtype=torch.int64), vectors.abs())
        ids = (z > 0).long()
        return Quantized(
            z_q=straight_through(z, self.decode(ids)), token_ids=ids, loss=z.new_zeros(())
        )

    def decode(self, token_ids: Tensor) -> Tensor:
        return (token_ids.long() * 2 - 1) * self.length

    def update(self, step: int) -> Mapping[str, Tensor]:
        del step
        self.length.lerp_(self.sums.take().sum() / 100, 0.5)
        return {}


def test_a_stranger_keeps_the_contract() -> None:
    check(_Signs())


def altered(what: str, change: Callable[[Quantized], Any]) -> type[_Signs]:
    """Change what ``forward`` gives."""

    class _Altered(_Signs):
        def forward(self, z: Tensor) -> Quantized:
            quantized = super().forward(z)
            return dataclasses.replace(quantized, **{what: change(quantized)})

    return _Altered


class _MovesInForward(_Signs):
    def forward(self, z: Tensor) -> Quantized:
        if self.training:
            self.length += 1
        return super().forward(z)


class _MovesInEval(_Signs):
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, z: Tensor) -> Quantized:
        self.calls += 1
        return super().forward(z)


class _Random(_Signs):
    def forward(self, z: Tensor) -> Quantized:
        return super().forward(torch.randn_like(z) + z - z)


class _OnlyImages(_Signs):
    def tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        require(grid == (7, 7), "only 7 x 7")
        return grid


class _Lists(_Signs):
    def tokens(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(grid) + 1,)


class _KeepsSkipped(_Signs):
    def begin_step(self, step: int, seed: int) -> None:
        """Keep the last one."""

    def discard_step(self) -> None:
        """Keep it."""


class _KeepsCounts(_Signs):
    def begin_step(self, step: int, seed: int) -> None:
        """Keep them."""

    def update(self, step: int) -> Mapping[str, Tensor]:
        del step
        self.length.lerp_(self.sums.total.sum() / 100, 0.5)
        return {}


class _LastBatch(_Signs):
    def forward(self, z: Tensor) -> Quantized:
        if self.training:
            self.sums.discard_step()
        return super().forward(z)


class _OnlyInt64(_Signs):
    def decode(self, token_ids: Tensor) -> Tensor:
        return (token_ids * 2 - 1) * self.length  # in uint8, 0 becomes 255


class _Idle(_Signs):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (type("NoOrder", (_Signs,), {"id_order": ""}), "id_order must be words, got ''"),
        (type("NoSize", (_Signs,), {"size": None}), "size must be a whole number"),
        (type("NoStd", (_Signs,), {"initial_std": 0.0}), "initial_std must be above 0, or None"),
        (_OnlyImages, "tokens() takes none of the grids [(16,), (4, 4), (2, 4, 3)]"),
        (_Lists, "token_ids must be torch.int64 of shape [8, 1, 17]"),
        (altered("z_q", lambda q: q.z_q.float()), "z_q must be torch.float64 of shape [8, 1, 16]"),
        (
            altered("token_ids", lambda q: q.token_ids + 1),
            "ids must be at least 0 and below",
        ),
        (altered("loss", lambda q: q.loss / 0), "the loss must be finite"),
        (altered("metrics", lambda q: {"a": q.z_q}), "metric a must be a detached finite scalar"),
        (altered("z_q", lambda q: q.z_q * 1.01), "decode must give back the z_q of eval mode"),
        (altered("z_q", lambda q: q.z_q.detach()), "the gradient must reach the latents"),
        (altered("z_q", lambda q: q.z_q.nan_to_num()), "for latents that are not finite"),
        (_Random, "must give equal ids in eval mode"),
        (
            _MovesInEval,
            "in eval mode must not change the state dict: calls",
        ),
        (_MovesInForward, "forward in train mode must leave the state dict to update: length"),
        (_OnlyInt64, "decode must take torch.uint8 as ids"),
        (_Idle, "parameter idle gets no gradient"),
        (_KeepsSkipped, "discard_step must leave no trace"),
        (_KeepsCounts, "update must leave only the state dict"),
        (_LastBatch, "the batches of a step must count as one batch: length differs"),
    ],
)
def test_a_broken_promise_is_named(broken: type[Codebook], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(broken())
    assert message in str(caught.value)


def test_ids_are_integers_of_any_width_in_one_shape_and_range(codebook: Codebook) -> None:
    token_ids = codebook.eval()(torch.randn(2, codebook.in_channels, 4, 4)).token_ids
    if codebook.num_codebooks == 0:
        with pytest.raises(ConfigError, match="continuous"):
            codebook.decode(token_ids)
        return
    expected = codebook.decode(token_ids)
    for dtype in INTEGERS:
        assert codebook.decode(token_ids.to(dtype)).equal(expected), dtype
    for dtype in (torch.bool, torch.float32):
        with pytest.raises(ConfigError, match=f"token ids must be integers, got {dtype}"):
            codebook.decode(token_ids.to(dtype))
    for bad in (-1, codebook.size):
        token_ids[-1, -1].view(-1)[-1] = bad
        with pytest.raises(ConfigError, match=f"from 0 to {codebook.size - 1}, got .*{bad}"):
            codebook.decode(token_ids)
    k = codebook.num_codebooks
    shape = f"[b, {k}, 21]" if codebook.token_grids else f"[b, {k}, *tokens]"
    with pytest.raises(ConfigError, match=re.escape(f"must be {shape}, got [2, {k + 1}, 4")):
        codebook.decode(torch.zeros(2, k + 1, 4, 4, dtype=torch.int64))


STEPS = """
import json
from pathlib import Path
from vqtrain import build, distributed
from vqtrain.ops.seeds import seed_torch
records = {{}}
for variant, arguments in json.loads(Path({path!r}).read_text()).items():
    torch.manual_seed(0)
    codebook = build.build("codebook", arguments.pop("kind"), arguments).double().train()
    parameters = dict(codebook.named_parameters())
    optimizer = torch.optim.SGD(list(parameters.values()) or [torch.zeros(1)], lr=0.02)
    record = records[variant] = dict(z_q=[], ids=[], loss=[], grad=[], weights=[], restarts=[])
    for step in range(50):
        # The whole batch is the same in every world; a rank takes its share of it, in order.
        generator = torch.Generator().manual_seed(step)
        shape = 8, codebook.in_channels, 4, 4
        whole = torch.randn(shape, generator=generator).double() + step // 10
        z = whole.chunk(world_size)[rank].clone().requires_grad_()
        if step == 0:
            seed_torch("initialize")
            codebook.initialize(distributed.all_gather(z))
        codebook.begin_step(step, seed=0)
        optimizer.zero_grad()
        quantized = codebook(z)
        (quantized.loss + quantized.z_q.sin().mean()).backward()
        if parameters:
            flat = torch.cat([p.grad.flatten() for p in parameters.values()])
            flat = distributed.all_reduce_sum(flat) / world_size
            torch.nn.utils.vector_to_parameters(flat, [p.grad for p in parameters.values()])
        record["weights"].append({{n: p.grad.clone() for n, p in parameters.items()}})
        optimizer.step()
        seed_torch(step)
        record["restarts"].append(codebook.update(step).get("restarts", torch.zeros(())))
        record["z_q"].append(quantized.z_q.detach())
        record["ids"].append(quantized.token_ids.double())
        record["loss"].append(quantized.loss.detach() / world_size)
        record["grad"].append(z.grad / world_size)
    for name in ("z_q", "ids", "grad"):  # the images of all ranks; steps come second
        record[name] = distributed.all_gather(torch.stack(record[name], 1))
    record["loss"] = distributed.all_reduce_sum(torch.stack(record["loss"]))
    # One tensor of all steps is compared sooner than fifty.
    record["restarts"] = torch.stack(record["restarts"])
    of_steps = record["weights"]
    record["weights"] = {{n: torch.stack([of[n] for of in of_steps]) for n in parameters}}
    record["state"] = codebook.state_dict()
torch.save(records, f"{{folder}}/records-{{rank}}.pt")
"""


@pytest.mark.ddp
def test_ranks_equal_each_other_and_one_process_on_the_joined_batch(
    all_arguments: dict[str, Any], run_ranks: Callable[[str, int], Path], tmp_path: Path
) -> None:
    def records(world_size: int, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        path = tmp_path / f"arguments-{world_size}.json"
        path.write_text(json.dumps(arguments))
        folder = run_ranks(STEPS.format(path=str(path)), world_size)
        return [torch.load(folder / f"records-{rank}.pt") for rank in range(world_size)]

    kinds = {kind: arguments for kind, arguments in all_arguments.items() if "-" not in kind}
    with ThreadPoolExecutor() as pool:  # ranks wait for each other more than they compute
        worlds = pool.map(records, (1, 2, 4), (all_arguments, all_arguments, kinds))
        (alone,), two, four = worlds
    restarted = {variant for variant, record in alone.items() if sum(record["restarts"]) > 0}
    assert restarted >= {"ema", "vq", "residual", "residual-shared", "grouped", "multiscale"}
    for world_size, ranks in ((2, two), (4, four)):
        for variant in ranks[0]:
            for rank in ranks:
                for name, tensor in rank[variant]["state"].items():
                    assert torch.equal(tensor, ranks[0][variant]["state"][name]), (variant, name)
            found, expected = ranks[0][variant], alone[variant]
            for name in expected:
                torch.testing.assert_close(
                    found[name],
                    expected[name],
                    rtol=1e-9,
                    atol=1e-9,
                    msg=lambda text, what=(variant, name, world_size): f"{what}: {text}",
                )


@pytest.mark.parametrize("inner", ["continuous", "kl", "multiscale", "hierarchical"])
@pytest.mark.parametrize("outer", ["residual", "grouped", "multiscale"])
def test_codebooks_without_an_id_at_each_position_are_no_parts_of_others(
    inner: str, outer: str, all_arguments: dict[str, Any]
) -> None:
    arguments = dict(all_arguments[outer])
    kind = arguments.pop("kind")
    with pytest.raises(ConfigError, match=f"inner.kind={inner} has"):
        build("codebook", kind, {**arguments, "inner": {**all_arguments[inner], "size": None}})
