"""What holds for every latent and every id, tried on random ones."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vqtrain import Tokenizer
from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.codebooks.bsq import BSQ
from vqtrain.codebooks.ema import EMA
from vqtrain.codebooks.fsq import FSQ
from vqtrain.codebooks.gaussian import Gaussian
from vqtrain.codebooks.grouped import Grouped
from vqtrain.codebooks.gumbel import Gumbel
from vqtrain.codebooks.ibq import IBQ
from vqtrain.codebooks.lfq import LFQ
from vqtrain.codebooks.parts import search, softmax
from vqtrain.codebooks.parts.points import Points
from vqtrain.codebooks.parts.vectors import to_vectors
from vqtrain.codebooks.residual import Residual
from vqtrain.errors import ConfigError

# The same examples each time, and no folder with those that failed.
few = settings(
    deadline=None,
    max_examples=10,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

# All their ids have a latent that leads to them.
REACHABLE = [
    *("bsq", "bsq-groups", "fsq", "fsq-levels", "ibq", "lfq", "lfq-groups"),
    *("gumbel", "gumbel-wide"),
    *("ema", "ema-normalized", "ema-sampled", "ema-never-restarted", "simvq", "simvq-rotation"),
    *("vq", "vq-normalized", "vq-entropy", "vq-never-restarted"),
    *("grouped", "grouped-vq", "grouped-bsq", "grouped-gumbel"),
    *("gaussian", "gaussian-groups"),
    "residual-lfq",  # its codes halve: the sign of a sum is that of the first part
]
# They take the best code for a start, and then for the rest; the best sum may begin otherwise.
GREEDY = [
    *("residual", "residual-shared", "residual-vq", "residual-fsq", "residual-dropout"),
    *("residual-gumbel", "residual-ibq"),
    *("multiscale", "multiscale-vq", "multiscale-bsq", "multiscale-sampled"),
]
# Networks stand between their levels, so that no latents for given ids can be written down.
BETWEEN_NETWORKS = ["hierarchical", "hierarchical-residual"]
CONTINUOUS = ["continuous", "kl", "kl-target"]
# Their loss in training goes over all codes, a tile at a time. Gumbel's noise is part of its tiles.
IN_TILES = [
    *("lfq", "lfq-groups", "bsq", "bsq-groups", "ibq", "vq-entropy"),
    *("residual-lfq", "residual-ibq", "grouped-bsq", "multiscale-bsq"),
]


@dataclass(frozen=True)
class Batch:
    """Random latents, for a codebook of any number of channels."""

    seed: int
    magnitude: float
    samples: int
    grid: tuple[int, ...]

    def latents(self, codebook: Codebook, **options: Any) -> Tensor:
        """Draw them, on the grid of the codebook if it takes one alone."""
        generator = torch.Generator().manual_seed(self.seed)
        grid = codebook.token_grids[-1] if codebook.token_grids else self.grid
        if codebook.grid_unit > 1:  # of two axes
            grid = (codebook.grid_unit * grid[0], codebook.grid_unit * grid[-1])
        shape = (self.samples, codebook.in_channels, *grid)
        return 10**self.magnitude * torch.randn(shape, generator=generator, **options)


batches = st.builds(
    Batch,
    seed=st.integers(0, 2**32),
    magnitude=st.floats(-3, 3),
    samples=st.integers(1, 5),
    grid=st.lists(st.integers(1, 6), min_size=1, max_size=2).map(tuple),
)


def test_all_variants_with_ids_are_here(all_arguments: dict[str, Any]) -> None:
    assert sorted([*REACHABLE, *GREEDY, *BETWEEN_NETWORKS, *CONTINUOUS]) == sorted(all_arguments)


# --- from latents to ids and back


@few
@given(batch=batches)
def test_decode_gives_back_z_q_to_the_last_bit(codebook: Codebook, batch: Batch) -> None:
    codebook.eval()
    torch.manual_seed(batch.seed)
    codebook.initialize(batch.latents(codebook))
    z = batch.latents(codebook)
    quantized = codebook(z)
    # A continuous codebook has no ids, and passes on the latents, or the means among them.
    ids, z_q = quantized.token_ids, quantized.z_q
    assert torch.equal(
        codebook.decode(ids) if codebook.num_codebooks else z[:, : codebook.dim], z_q
    )


def latents_for(codebook: Codebook, token_ids: Tensor) -> Tensor:
    """Find latents that lead to ids."""
    vectors = codebook.decode(token_ids)
    if isinstance(codebook, Grouped):
        parts = zip(codebook.groups, token_ids.chunk(len(codebook.groups), 1), strict=True)
        return torch.cat([latents_for(group, ids) for group, ids in parts], 1)
    if isinstance(codebook, Gaussian):  # a narrow distribution at the point
        return torch.cat([vectors, torch.full_like(vectors, -10.0)], 1)
    if isinstance(codebook, Gumbel):  # the nearest in direction to the scores of a code
        return codebook.scores.weight[token_ids[:, 0]].movedim(-1, 1)
    if isinstance(codebook, FSQ):
        z = unbound(codebook, vectors.movedim(1, -1) * codebook.half_width)
        return z.movedim(-1, 1)
    return vectors


def range_and_offset(codebook: FSQ) -> tuple[Tensor, Tensor]:
    half_range = (codebook.counts - 1) * (1 + codebook.eps) / 2
    return half_range, (codebook.counts % 2 == 0) / 2


def unbound(codebook: FSQ, levels: Tensor) -> Tensor:
    """Undo the squashing of latents that made them levels."""
    half_range, offset = range_and_offset(codebook)
    return torch.atanh((levels + offset) / half_range) - torch.atanh(offset / half_range)


def put_on_a_sphere(codebook: Codebook) -> None:
    """Give codes that are chosen by an inner product one length, so that none hides another."""
    for module in codebook.modules():
        if isinstance(module, IBQ):
            nn.init.normal_(module.vectors)
            module.vectors.data = nn.functional.normalize(module.vectors.data)
        if isinstance(module, Gumbel):
            module.scores.weight.data = nn.functional.normalize(module.scores.weight.data)
            module.scores.bias.data.zero_()


@pytest.mark.parametrize("variant", REACHABLE)
@torch.no_grad()
def test_every_id_is_reached_and_survives(codebook: Codebook) -> None:
    codebook.eval()
    put_on_a_sphere(codebook)
    every = [torch.arange(codebook.size)] * codebook.num_codebooks
    token_ids = torch.cartesian_prod(*every).reshape(-1, codebook.num_codebooks).T[None]
    assert token_ids.shape[2] == codebook.size**codebook.num_codebooks
    quantized = codebook(latents_for(codebook, token_ids))
    assert torch.equal(quantized.token_ids, token_ids)
    assert torch.equal(quantized.z_q, codebook.decode(token_ids))


@pytest.mark.parametrize("variant", GREEDY)
@few
@given(seed=st.integers(0, 2**32))
def test_sums_of_codes_become_sums_of_codes(codebook: Codebook, seed: int) -> None:
    codebook.eval()
    grid = codebook.token_grids[-1] if codebook.token_grids else (30,)
    shape = (2, codebook.num_codebooks, *codebook.tokens(grid))
    given_ids = torch.randint(codebook.size, shape, generator=torch.Generator().manual_seed(seed))
    quantized = codebook(codebook.decode(given_ids))
    assert torch.equal(codebook.decode(quantized.token_ids), quantized.z_q)


def test_an_id_of_a_residual_need_not_survive(all_arguments: dict[str, Any]) -> None:
    inner = {**all_arguments["residual"]["inner"], "dim": 1, "size": None}
    codebook = Residual(size=2, num_codebooks=2, shared=False, shrink=1.0, inner=inner).eval()
    codebook.levels[0].vectors.copy_(torch.tensor([[0.0], [1.0]]))
    codebook.levels[1].vectors.copy_(torch.tensor([[0.0], [0.75]]))
    z = codebook.decode(torch.tensor([[[0], [1]]]))
    assert z.item() == 0.75  # 0 + 0.75; but 1 is the nearest start, and 0 the nearest to -0.25
    assert codebook(z).token_ids.flatten().tolist() == [1, 0]


# --- tiles and order


@dataclass
class Call:
    """What one codebook without others inside was given, and what it chose."""

    codebook: Codebook
    z: Tensor
    token_ids: Tensor

    def scores(self) -> Tensor:
        """Of all codes, as in float64; the largest one is chosen."""
        codebook = copy.deepcopy(self.codebook).double()
        z = to_vectors(self.z).double()
        if isinstance(codebook, Gumbel):
            return codebook.scores(z)
        codes = to_vectors(codebook.decode(torch.arange(codebook.size)[None, None]))
        if isinstance(codebook, IBQ):
            return z @ codes.T
        if isinstance(codebook, Points):
            mean, log_variance = (part[:, None] for part in z.chunk(2, dim=1))
            precision = (-log_variance.clamp(-30, 20)).exp()
            return (precision * codes * (mean - codes / 2) + codes.square() / 2).sum(2)
        if isinstance(codebook, FSQ):
            half_range, offset = range_and_offset(codebook)
            levels = torch.tanh(z + torch.atanh(offset / half_range)) * half_range - offset
            z = levels / codebook.half_width
        return -(z[:, None] - codes).square().sum(2)


def run(codebook: Codebook, z: Tensor) -> tuple[Quantized, list[Call]]:
    """Quantize, and note what the innermost codebooks do."""
    calls: list[Call] = []

    def note(module: nn.Module, given: tuple[Tensor], quantized: Quantized) -> None:
        assert isinstance(module, Codebook)
        calls.append(Call(module, given[0], quantized.token_ids))

    books = [module for module in codebook.modules() if isinstance(module, Codebook)]
    leaves = [book for book in books if sum(isinstance(m, Codebook) for m in book.modules()) == 1]
    handles = [leaf.register_forward_hook(note) for leaf in leaves]
    with torch.no_grad():
        quantized = codebook(z)
    for handle in handles:
        handle.remove()
    return quantized, calls


def images_that_tie(calls: list[Call], others: list[Call], order: Tensor) -> Tensor:
    """Say which images have other ids, each of which must begin with two codes equally good.

    Once an image has another id, its later rests are others too.
    """
    assert len(calls) == len(others)
    ties = torch.zeros(len(order), dtype=torch.bool)
    for call, other in zip(calls, others, strict=True):
        differs = (call.token_ids[order] != other.token_ids).flatten(1)
        first = (differs & ~ties[:, None]).flatten()
        if first.any():
            scores = call.scores().reshape(len(order), -1, call.codebook.size)[order].flatten(0, 1)
            a, b = (
                scores.gather(1, ids.reshape(-1, 1))[first]
                for ids in (call.token_ids[order], other.token_ids)
            )
            assert ((a - b).abs() <= 1e-5 * scores[first].abs().amax(1, keepdim=True)).all()
        ties |= differs.any(1)
    return ties


def test_another_id_is_a_tie_only_where_codes_are_equally_good(
    all_arguments: dict[str, Any],
) -> None:
    arguments = {key: value for key, value in all_arguments["ema"].items() if key != "kind"}
    codebook = EMA(**{**arguments, "size": 3, "dim": 1})
    codebook.vectors.copy_(torch.tensor([[1.0], [1.0 + 1e-6], [1.1]]))
    call, equal, worse = (
        Call(codebook, torch.full((2, 1, 1), 3.0), torch.tensor([[[id_]], [[0]]]))
        for id_ in range(3)
    )
    order = torch.arange(2)
    assert images_that_tie([call], [call], order).tolist() == [False, False]
    assert images_that_tie([call], [equal], order).tolist() == [True, False]
    # After a tie anything may follow in the same image.
    assert images_that_tie([call, call], [equal, worse], order).tolist() == [True, False]
    with pytest.raises(AssertionError):
        images_that_tie([call], [worse], order)


def agree(codebook: Codebook, z: Tensor, other_run: Callable[[Tensor], Any], order: Tensor) -> None:
    """Compare a run with another one, of the same images in another order."""
    quantized, calls = run(codebook, z)
    other, other_calls = other_run(z[order])
    ties = images_that_tie(calls, other_calls, order)
    assert ties.sum() <= 1
    assert torch.equal(quantized.token_ids[order][~ties], other.token_ids[~ties])
    torch.testing.assert_close(quantized.z_q[order][~ties], other.z_q[~ties], rtol=1e-5, atol=1e-5)
    if not ties.any():
        torch.testing.assert_close(quantized.loss, other.loss, rtol=1e-5, atol=1e-5)


@few
@given(batch=batches, tile=st.integers(1, 17))
def test_results_do_not_depend_on_tiles(codebook: Codebook, batch: Batch, tile: int) -> None:
    codebook.eval()
    z = batch.latents(codebook)

    def in_tiles(z: Tensor) -> tuple[Quantized, list[Call]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "TILE", tile)
            patch.setattr(softmax, "TILE_SCORES", tile)
            return run(codebook, z)

    agree(codebook, z, in_tiles, torch.arange(batch.samples))


@few
@given(batch=batches, random=st.randoms(use_true_random=False))
def test_results_do_not_depend_on_the_order_of_images(
    codebook: Codebook, batch: Batch, random: Any
) -> None:
    codebook.eval()
    order = torch.tensor(random.sample(range(batch.samples), batch.samples))
    agree(codebook, batch.latents(codebook), lambda z: run(codebook, z), order)


@pytest.mark.parametrize("variant", IN_TILES)
@few
@given(seed=st.integers(0, 2**32), tile=st.integers(1, 400))
def test_losses_in_training_do_not_depend_on_tiles(
    codebook: Codebook, seed: int, tile: int
) -> None:
    codebook.double().train()
    z = Batch(seed, 0.0, 3, (4, 4)).latents(codebook, dtype=torch.float64).requires_grad_()

    def loss_and_gradients() -> list[Tensor]:
        copied = copy.deepcopy(codebook)  # for it counts what it was given
        loss = copied(z).loss
        return [loss, *torch.autograd.grad(loss, [z, *copied.parameters()])]

    whole = loss_and_gradients()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "TILE_SCORES", tile)
        in_tiles = loss_and_gradients()
    torch.testing.assert_close(in_tiles, whole, rtol=1e-9, atol=1e-9)


# --- half precision


@pytest.fixture
def tokenizer(variant: str, all_arguments: dict[str, Any]) -> Tokenizer:
    arguments = dict(all_arguments[variant])
    shared = {"channels": 8, "block_channels": 4, "num_blocks": 1}
    return Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {**shared, "in_channels": 3, "num_downsamplings": 2},
        },
        codebook={"kind": arguments.pop("kind"), "arguments": arguments},
        decoder={
            "kind": "vqvae",
            "arguments": {**shared, "out_channels": 3, "num_upsamplings": 2},
        },
        channels=3,
    )


@pytest.mark.parametrize("is_training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing_of_what_is_quantized(
    tokenizer: Tokenizer, is_training: bool, dtype: torch.dtype
) -> None:
    tokenizer.train(is_training)
    z = Batch(0, 0.0, 3, (4, 4)).latents(tokenizer.codebook).to(dtype)
    plain = copy.deepcopy(tokenizer).quantize(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        cast = tokenizer.quantize(z)
    assert torch.equal(cast.token_ids, plain.token_ids)
    assert torch.equal(cast.z_q, plain.z_q)
    assert torch.equal(cast.loss, plain.loss)
    assert all(torch.equal(cast.metrics[name], plain.metrics[name]) for name in plain.metrics)


@pytest.mark.parametrize("variant", [*REACHABLE, *GREEDY])
def test_autocast_changes_nothing_of_what_is_decoded(tokenizer: Tokenizer) -> None:
    tokenizer.eval()
    z = Batch(0, 0.0, 3, (4, 4)).latents(tokenizer.codebook)
    quantized = tokenizer.quantize(z)
    ids = quantized.token_ids
    found: list[Tensor] = []
    tokenizer.project_out.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.autocast("cpu", torch.bfloat16):
        tokenizer.decode(ids[:, 0] if tokenizer.codebook.num_codebooks == 1 else ids)
    assert torch.equal(found[0], quantized.z_q)


# --- as many ids as int64 holds

SIGNS = {
    "commitment_weight": 0.25,
    "entropy_weight": 0.1,
    "diversity": 1.0,
    "temperature": 0.01,
    "group_bits": 9,
}


def fsq(*levels: int) -> FSQ:
    return FSQ(size=None, levels=levels, eps=1e-3)


LARGE: dict[str, tuple[int, Callable[[], Codebook]]] = {
    "lfq": (2**63, lambda: LFQ(size=2**63, **SIGNS)),
    "bsq": (2**36, lambda: BSQ(size=2**36, **SIGNS)),
    "bsq-63": (2**63, lambda: BSQ(size=2**63, **SIGNS)),
    "fsq-2": (2**63, lambda: fsq(*[2] * 63)),
    "fsq-3": (2 * 3**39, lambda: fsq(*[3] * 39, 2)),
    "fsq-below": (2**63 - 1, lambda: fsq(7, 7, 73, 127, 337, 92737, 649657)),
}


@pytest.mark.parametrize("kind", LARGE)
@few
@example(share=0.0)
@example(share=1.0)
@given(share=st.floats(0, 1))
def test_ids_near_the_largest_of_int64_survive(kind: str, share: float) -> None:
    size, make = LARGE[kind]
    codebook = make().double().eval()
    assert codebook.size == size
    first = min(int(share * size), size - 1)
    ids = [abs(first - near) for near in (0, 1, 2**31, 2**32 + 1)]
    token_ids = torch.tensor(ids)[None, None]
    quantized = codebook(latents_for(codebook, token_ids))
    assert quantized.token_ids.flatten().tolist() == ids
    assert torch.equal(quantized.z_q, codebook.decode(token_ids))
    assert len({tuple(vector) for vector in quantized.z_q[0].T.tolist()}) == len(set(ids))


@pytest.mark.parametrize("kind", LARGE)
def test_latents_of_large_codebooks_have_ids_that_decode_to_them(kind: str) -> None:
    size, make = LARGE[kind]
    codebook = make().train()
    quantized = codebook(Batch(0, 0.0, 3, (4, 4)).latents(codebook))
    ids = quantized.token_ids.flatten().tolist()
    assert all(0 <= id_ < size for id_ in ids)
    assert max(ids) > size / 2
    assert torch.equal(codebook.decode(quantized.token_ids), quantized.z_q)
    assert quantized.loss.isfinite()


TOO_LARGE: dict[str, Callable[[], Codebook]] = {
    "lfq": lambda: LFQ(size=2**63 + 1, **SIGNS),
    "lfq-64": lambda: LFQ(size=2**64, **SIGNS),
    "bsq": lambda: BSQ(size=2**63 + 1, **SIGNS),
    "bsq-64": lambda: BSQ(size=2**64, **SIGNS),
    "fsq": lambda: fsq(3, 3, 3, 19, 43, 5419, 77158673929),
    "fsq-64": lambda: fsq(*[2] * 64),
}


@pytest.mark.parametrize("kind", TOO_LARGE)
def test_one_id_more_is_refused(kind: str) -> None:
    assert math.prod((3, 3, 3, 19, 43, 5419, 77158673929)) == 2**63 + 1
    with pytest.raises(ConfigError, match=r"2\^63"):
        TOO_LARGE[kind]()
