"""What every codebook must do. A new yaml under configs/codebook joins by itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain.build import build, configs_folder
from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.errors import ConfigError

GRIDS = {"tokens": (16,), "image": (4, 4)}


def latents(codebook: Codebook, batch: int, *grid: int, **options: Any) -> Tensor:
    return torch.randn(batch, codebook.dim * codebook.moments, *grid, **options)


def tokens_of(codebook: Codebook, *grid: int) -> tuple[int, ...]:
    return (sum(s**2 for s in codebook.scales),) if codebook.scales else grid


@pytest.fixture(params=GRIDS.values(), ids=GRIDS)
def grid(request: pytest.FixtureRequest, codebook: Codebook) -> tuple[int, ...]:
    """A multi-scale codebook takes images alone."""
    return GRIDS["image"] if codebook.scales else request.param


def decoded(codebook: Codebook, quantized: Quantized) -> Tensor:
    """Decode the ids; a continuous codebook has none, and gives what it gave."""
    if codebook.num_codebooks:
        return codebook.decode(quantized.token_ids)
    with pytest.raises(ConfigError, match="continuous"):
        codebook.decode(quantized.token_ids)
    return quantized.z_q


def test_there_are_codebooks_to_check() -> None:
    assert len(list((configs_folder() / "codebook").glob("*.yaml"))) >= 12


def test_decode_gives_back_z_q(codebook: Codebook, grid: tuple[int, ...]) -> None:
    quantized = codebook.eval()(latents(codebook, 2, *grid))
    assert torch.equal(decoded(codebook, quantized), quantized.z_q)


def test_shapes_and_types(codebook: Codebook, grid: tuple[int, ...]) -> None:
    z = latents(codebook, 2, *grid, dtype=torch.float64)
    for mode in (True, False):
        quantized = codebook.double().train(mode)(z)
        assert quantized.z_q.shape == (2, codebook.dim, *grid)
        assert quantized.z_q.dtype == torch.float64
        tokens = tokens_of(codebook, *grid)
        assert quantized.token_ids.shape == (2, codebook.num_codebooks, *tokens)
        assert quantized.token_ids.dtype == torch.int64
        assert quantized.loss.shape == ()
        assert quantized.loss.isfinite()
        assert all(value.shape == () and value.isfinite() for value in quantized.metrics.values())


def test_ids_stay_inside_the_codebook(codebook: Codebook) -> None:
    ids = codebook(latents(codebook, 8, 4, 4) * 10).token_ids
    if codebook.num_codebooks:
        assert int(ids.min()) >= 0
        assert int(ids.max()) < codebook.size


def test_latents_that_are_no_numbers_never_pass_for_some(codebook: Codebook) -> None:
    z = latents(codebook, 2, 4, 4)
    z[0, 0, 1, 2] = torch.nan
    quantized = codebook.train()(z)
    ids = quantized.token_ids
    assert ids.numel() == 0 or 0 <= int(ids.min()) <= int(ids.max()) < codebook.size
    assert not (quantized.loss.isfinite() and quantized.z_q.isfinite().all())


def test_gradient_passes_straight_to_the_encoder(codebook: Codebook) -> None:
    z = latents(codebook, 2, 4, 4, requires_grad=True)
    quantized = codebook(z)
    (quantized.z_q.sin().sum() + quantized.loss).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    # Each position has its part.
    assert (z.grad.abs().sum(1) > 0).all()


def test_every_parameter_learns(codebook: Codebook) -> None:
    quantized = codebook(latents(codebook, 8, 4, 4, requires_grad=True))
    (quantized.z_q.sin().sum() + quantized.loss).backward()
    for name, parameter in codebook.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_eval_changes_no_state_and_is_repeatable(codebook: Codebook) -> None:
    before = {name: value.clone() for name, value in codebook.eval().state_dict().items()}
    z = latents(codebook, 2, 4, 4)
    assert torch.equal(codebook(z).token_ids, codebook(z).token_ids)
    for name, value in codebook.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)


def test_forward_in_training_moves_no_code_before_update(codebook: Codebook) -> None:
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.train()(latents(codebook, 2, 4, 4))
    for name, value in codebook.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)


def test_state_goes_through_a_state_dict(
    codebook: Codebook, another: Callable[[], Codebook]
) -> None:
    codebook.train()
    codebook.initialize(latents(codebook, 2, 4, 4))
    codebook(latents(codebook, 2, 4, 4))
    codebook.update(0)
    other = another()
    other.load_state_dict(codebook.state_dict())
    z = latents(codebook, 2, 4, 4)
    assert torch.equal(codebook.eval()(z).z_q, other.eval()(z).z_q)


def test_batches_of_a_step_move_a_codebook_as_one_batch_does(
    codebook: Codebook, another: Callable[[], Codebook]
) -> None:
    joined, split = codebook.double(), another().double()
    split.load_state_dict(joined.state_dict())
    for step in range(5):
        z = latents(joined, 8, 4, 4, dtype=torch.float64) * (1 + step)
        joined(z)
        for part in z.split(2):
            split(part)
        for each in (joined, split):
            torch.manual_seed(step)
            each.update(step)
    for name, value in joined.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], value, rtol=1e-12, atol=1e-12)


def test_what_an_exported_tokenizer_must_say_is_there(codebook: Codebook) -> None:
    assert codebook.id_order
    assert codebook.selection_rule


STEPS = """
import json
from pathlib import Path
from vqtrain import build, distributed
from vqtrain.layers.step_state import Noise
from vqtrain.ops.random import seed_for, seed_torch
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
        shape = 8, codebook.dim * codebook.moments, 4, 4
        whole = torch.randn(shape, generator=generator).double() + step // 10
        z = whole.chunk(world_size)[rank].clone().requires_grad_()
        if step == 0:
            seed_torch("initialize")
            codebook.initialize(distributed.all_gather(z))
        for module in codebook.modules():
            if isinstance(module, Noise):
                module.seed = seed_for("noise", step)
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

    (alone,) = records(1, all_arguments)
    restarted = {variant for variant, record in alone.items() if sum(record["restarts"]) > 0}
    assert restarted >= {"ema", "vq", "residual", "residual-shared", "grouped", "multiscale"}
    kinds = {kind: arguments for kind, arguments in all_arguments.items() if "-" not in kind}
    for world_size, arguments in ((2, all_arguments), (4, kinds)):
        ranks = records(world_size, arguments)
        for variant in arguments:
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


@pytest.mark.parametrize("inner", ["kl", "multiscale"])
@pytest.mark.parametrize("outer", ["residual", "grouped", "multiscale"])
def test_codebooks_without_an_id_at_each_position_are_no_parts_of_others(
    inner: str, outer: str, all_arguments: dict[str, Any]
) -> None:
    arguments = dict(all_arguments[outer])
    kind = arguments.pop("kind")
    with pytest.raises(ConfigError, match=f"inner.kind={inner} has"):
        build("codebook", kind, {**arguments, "inner": {**all_arguments[inner], "size": None}})
