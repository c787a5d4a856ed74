"""What every codebook must do. A new yaml under configs/codebook joins by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from vqtrain import build
from vqtrain.codebooks.base import Codebook

CONFIGS = sorted((Path(__file__).parents[2] / "configs/codebook").glob("*.yaml"))
GRIDS = {"tokens": (16,), "image": (4, 4)}


def build_codebook(path: Path) -> Codebook:
    arguments = yaml.safe_load(path.read_text())
    codebook = build.build("codebook", arguments.pop("kind"), arguments)
    assert isinstance(codebook, Codebook)
    return codebook


def test_there_are_codebooks_to_check() -> None:
    assert len(CONFIGS) >= 2


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


@pytest.fixture
def codebook(path: Path) -> Codebook:
    return build_codebook(path)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_decode_gives_back_z_q(codebook: Codebook, grid: tuple[int, ...]) -> None:
    quantized = codebook.eval()(torch.randn(2, codebook.dim, *grid))
    assert torch.equal(codebook.decode(quantized.token_ids), quantized.z_q)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_shapes_and_types(codebook: Codebook, grid: tuple[int, ...]) -> None:
    z = torch.randn(2, codebook.dim, *grid, dtype=torch.float64)
    quantized = codebook.double()(z)
    assert quantized.z_q.shape == z.shape
    assert quantized.z_q.dtype == torch.float64
    assert quantized.token_ids.shape == (2, codebook.num_codebooks, *grid)
    assert quantized.token_ids.dtype == torch.int64
    assert quantized.loss.shape == ()
    assert quantized.loss.isfinite()


def test_ids_stay_inside_the_codebook(codebook: Codebook) -> None:
    ids = codebook(torch.randn(8, codebook.dim, 4, 4) * 10).token_ids
    assert int(ids.min()) >= 0
    assert int(ids.max()) < codebook.size


def test_gradient_passes_straight_to_the_encoder(codebook: Codebook) -> None:
    z = torch.randn(2, codebook.dim, 4, 4, requires_grad=True)
    codebook(z).z_q.sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad.abs().sum() > 0


def test_eval_changes_no_state_and_is_repeatable(codebook: Codebook) -> None:
    before = {name: value.clone() for name, value in codebook.eval().state_dict().items()}
    z = torch.randn(2, codebook.dim, 4, 4)
    assert torch.equal(codebook(z).token_ids, codebook(z).token_ids)
    for name, value in codebook.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)


def test_forward_in_training_moves_no_code_before_update(codebook: Codebook) -> None:
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.train()(torch.randn(2, codebook.dim, 4, 4))
    for name, value in codebook.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, msg=name)


def test_state_goes_through_a_state_dict(codebook: Codebook, path: Path) -> None:
    codebook.train()
    codebook.initialize(torch.randn(2, codebook.dim, 8, 8))
    codebook(torch.randn(2, codebook.dim, 8, 8))
    codebook.update(0)
    other = build_codebook(path)
    other.load_state_dict(codebook.state_dict())
    z = torch.randn(2, codebook.dim, 4, 4)
    assert torch.equal(codebook.eval()(z).z_q, other.eval()(z).z_q)


def test_what_an_exported_tokenizer_must_say_is_there(codebook: Codebook) -> None:
    assert codebook.id_order
    assert codebook.selection_rule


STEPS = """
import yaml
from pathlib import Path
from vqtrain import build, distributed
from vqtrain.ops.random import seed_torch
arguments = yaml.safe_load(Path({path!r}).read_text())
arguments |= {{key: value for key, value in dict(size=32, dim=4).items() if key in arguments}}
torch.manual_seed(0)
codebook = build.build("codebook", arguments.pop("kind"), arguments).double().train()
optimizer = torch.optim.SGD(list(codebook.parameters()) or [torch.zeros(1)], lr=0.1)
for step in range(50):
    # The whole batch is the same in every world; a rank takes its share of it, in order.
    generator = torch.Generator().manual_seed(step)
    whole = torch.randn(8, codebook.dim, 3, 3, generator=generator).double()
    whole = whole * (1 + step / 10)
    z = whole.chunk(world_size)[rank]
    if step == 0:
        seed_torch("initialize")
        codebook.initialize(distributed.all_gather(z))
    optimizer.zero_grad()
    codebook(z).loss.backward() if list(codebook.parameters()) else codebook(z)
    for parameter in codebook.parameters():
        parameter.grad = distributed.all_reduce_sum(parameter.grad) / world_size
    optimizer.step()
    seed_torch(step)
    codebook.update(step)
torch.save(codebook.state_dict(), f"{{folder}}/state-{{rank}}.pt")
"""


@pytest.mark.ddp
def test_ranks_stay_equal_to_each_other_and_to_one_process(
    path: Path, run_ranks: Callable[[str, int], Path]
) -> None:
    script = STEPS.format(path=str(path))
    one, two = run_ranks(script, 1), run_ranks(script, 2)
    alone = torch.load(one / "state-0.pt")
    first, second = (torch.load(two / f"state-{rank}.pt") for rank in range(2))
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-9, atol=1e-9, msg=name)
