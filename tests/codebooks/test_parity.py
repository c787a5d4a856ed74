"""Codebooks against public implementations, or against their formulas written plainly.

All is compared in float64, but for tables of vector-quantize-pytorch, which casts to float32. A
gradient is that of a random linear function of z_q, plus the loss. Where a reference does something
else on purpose or by mistake, a test says what it does instead.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import vector_quantize_pytorch as reference
from diffusers.models.autoencoders import vq_model
from taming.modules.vqvae import quantize as taming
from torch import Tensor, nn
from torch.nn import functional as F
from vector_quantize_pytorch.vector_quantize_pytorch import rotate_to

from vqtrain.build import kinds, resolve
from vqtrain.codebooks.bsq import BSQ
from vqtrain.codebooks.continuous import Continuous
from vqtrain.codebooks.ema import EMA
from vqtrain.codebooks.fsq import FSQ
from vqtrain.codebooks.gaussian import Gaussian
from vqtrain.codebooks.grouped import Grouped
from vqtrain.codebooks.gumbel import Gumbel
from vqtrain.codebooks.hierarchical import Hierarchical
from vqtrain.codebooks.ibq import IBQ
from vqtrain.codebooks.kl import KL
from vqtrain.codebooks.lfq import LFQ
from vqtrain.codebooks.multiscale import MultiScale
from vqtrain.codebooks.parts.vectors import rotation, to_grid, to_vectors
from vqtrain.codebooks.residual import Residual
from vqtrain.codebooks.simvq import SimVQ
from vqtrain.codebooks.vq import VQ

SIZE, DIM = 20, 4
EXACT = {"rtol": 1e-10, "atol": 1e-10}
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}

EMA_ARGUMENTS = {
    "dim": DIM,
    "decay": 0.8,
    "commitment_weight": 0.25,
    "l2_normalize": False,
    "gradient": "straight_through",
    "kmeans_iterations": 0,
    "restart_below": 0.0,
    "sampling_temperature": 0.0,
}


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def latents(channels: int = DIM, grid: Sequence[int] = (3, 5)) -> Tensor:
    return torch.randn(2, channels, *grid, requires_grad=True)


def gradients(z_q: Tensor, loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    """Of a linear function that is random, but the same for each z_q of the same shape."""
    weights = torch.randn(z_q.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((weights * z_q).sum() + loss, leaves)


def close(found: Any, expected: Any, tolerance: dict[str, float] = EXACT) -> None:
    torch.testing.assert_close(found, expected, **tolerance)


def entropies_of(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """The mean entropy of each vector's distribution, and the entropy of the mean of all."""
    each = torch.special.entr(probabilities).sum(1).mean()
    return each, torch.special.entr(probabilities.mean(0)).sum()


def squared_distances(z: Tensor, codes: Tensor) -> Tensor:
    return (z[:, None] - codes[None]).square().sum(2)


# --- fsq


@pytest.mark.parametrize(
    "levels", [[8, 5, 5, 5], [8, 8, 8, 6, 5], [7, 5, 5, 5, 5], [3], [4], [3, 4, 16, 17]], ids=str
)
def test_fsq_equals_the_library(levels: list[int]) -> None:
    z = torch.randn(4, len(levels), 8, 8) * 2
    z.requires_grad_()
    ours = FSQ(size=None, levels=levels, eps=1e-3)
    quantized = ours(z)
    z_q, ids = reference.FSQ(levels)(z)
    assert torch.equal(quantized.token_ids[:, 0], ids.long())
    assert ids.unique().numel() > 2
    close(quantized.z_q, z_q)
    close(gradients(quantized.z_q, quantized.loss, z), gradients(z_q, torch.zeros(()), z))
    every = torch.arange(math.prod(levels))
    assert torch.equal(ours.decode(every[None, None])[0].T, reference.FSQ(levels).implicit_codebook)


# --- lfq and bsq

BITS = 4
SIGN_ARGUMENTS = {
    "size": 2**BITS,
    "commitment_weight": 0.3,
    "entropy_weight": 0.2,
    "diversity": 0.7,
    "group_bits": BITS,
}
KINDS_OF_SIGNS = {"lfq": (LFQ, False), "bsq": (BSQ, True)}
# The library takes logarithms of max(p, FLOOR): below it, -p log p is too small by at most FLOOR/e.
FLOOR = 1e-5


def library_of_signs(*, spherical: bool) -> reference.LFQ:
    made = reference.LFQ(
        codebook_size=2**BITS,
        entropy_loss_weight=0.2,
        commitment_loss_weight=0.3,
        diversity_gamma=0.7,
        spherical=spherical,
        force_quantization_f32=False,
    )
    return made.double().train()


def first_bit_is_highest(ids: Tensor) -> Tensor:
    return sum((ids >> bit & 1) << (BITS - 1 - bit) for bit in range(BITS))


def corners(dim: int) -> Tensor:
    return torch.tensor(list(product((-1.0, 1.0), repeat=dim)))


@pytest.mark.parametrize("kind", KINDS_OF_SIGNS)
def test_signs_equal_the_library(kind: str) -> None:
    ours, spherical = KINDS_OF_SIGNS[kind]
    temperature = 4.0 if kind == "lfq" else 1.0
    z = (2 * torch.rand(2, BITS, 3, 5) - 1).mul(2).requires_grad_()
    # No probability is so small that the library's floor matters.
    unit = F.normalize(to_vectors(z), dim=1) if spherical else to_vectors(z)
    codes = corners(BITS) / (BITS**0.5 if spherical else 1)
    probabilities = (-squared_distances(unit, codes) / temperature).softmax(1)
    assert probabilities.min() > FLOOR
    quantized = ours(**SIGN_ARGUMENTS, temperature=temperature).train()(z)
    (z_q, ids, loss), breakdown = library_of_signs(spherical=spherical)(
        z, inv_temperature=1 / temperature, return_loss_breakdown=True
    )
    assert torch.equal(quantized.token_ids[:, 0], first_bit_is_highest(ids.long()))
    close(quantized.z_q, z_q)
    close(quantized.metrics["per_sample_entropy"], breakdown.per_sample_entropy)
    close(quantized.metrics["codebook_entropy"], breakdown.batch_entropy)
    close(quantized.metrics["distance"], breakdown.commitment)
    close(quantized.loss, loss)
    close(gradients(quantized.z_q, quantized.loss, z), gradients(z_q, loss, z))


@pytest.mark.parametrize("kind", KINDS_OF_SIGNS)
def test_entropies_of_signs_are_those_of_the_library_but_for_its_floor(kind: str) -> None:
    ours, spherical = KINDS_OF_SIGNS[kind]
    z = latents(BITS, (16, 16))
    quantized = ours(**SIGN_ARGUMENTS, temperature=0.01).train()(z)
    # 1 / 0.01 is the library's default of 100.
    _, breakdown = library_of_signs(spherical=spherical)(z, return_loss_breakdown=True)
    bound = 2**BITS * FLOOR / math.e
    for name, theirs in (
        ("per_sample_entropy", breakdown.per_sample_entropy),
        ("codebook_entropy", breakdown.batch_entropy),
    ):
        assert -1e-12 <= quantized.metrics[name] - theirs <= bound


@pytest.mark.parametrize("kind", KINDS_OF_SIGNS)
@pytest.mark.parametrize("group_bits", [2, 3])
def test_entropies_of_groups_of_signs_go_over_all_corners(kind: str, group_bits: int) -> None:
    ours, spherical = KINDS_OF_SIGNS[kind]
    z = latents(BITS)
    arguments = {**SIGN_ARGUMENTS, "group_bits": group_bits}
    quantized = ours(**arguments, temperature=0.5).train()(z)
    unit = F.normalize(to_vectors(z), dim=1) if spherical else to_vectors(z)
    scale = BITS**-0.5 if spherical else 1.0
    whole = (-squared_distances(unit, scale * corners(BITS)) / 0.5).softmax(1)
    each, _ = entropies_of(whole)
    of_all = torch.zeros(())
    for part in unit.split(group_bits, 1):
        codes = scale * corners(part.shape[1])
        of_all = of_all + entropies_of((-squared_distances(part, codes) / 0.5).softmax(1))[1]
    commitment = (unit - scale * unit.sign()).square().mean()
    loss = 0.3 * commitment + 0.2 * (each - 0.7 * of_all)
    close(quantized.loss, loss)
    close(torch.autograd.grad(quantized.loss, z), torch.autograd.grad(loss, z))


MEANS = """
from vector_quantize_pytorch.lookup_free_quantization import maybe_distributed_mean
from vqtrain import distributed

x = torch.tensor([[1.0, 2.0], [3.0, 10.0]])[rank]
found = {}
for name, mean in (("ours", distributed.mean_over_ranks), ("theirs", maybe_distributed_mean)):
    weight = torch.tensor(3.0, requires_grad=True)
    value = mean(weight * x)
    value.square().sum().backward()
    gradient = distributed.all_reduce_sum(weight.grad) / world_size  # as DDP does it
    found[name] = value.tolist(), gradient.item()
torch.save(found, f"{folder}/{rank}.pt")
"""


@pytest.mark.ddp
def test_the_mean_over_ranks_is_one_where_the_library_only_divides(
    run_ranks: Callable[[str, int], Path],
) -> None:
    folder = run_ranks(MEANS, 2)
    ranks = [torch.load(folder / f"{rank}.pt") for rank in range(2)]
    # The mean of 3 (1, 2) and 3 (3, 10) is 3 (2, 6). Its squares are w^2 (4 + 36) at w = 3, which
    # has the gradient 2 w 40.
    assert [rank["ours"] for rank in ranks] == [([6.0, 18.0], 240.0)] * 2
    # The library drops what all_reduce returns, and halves each rank's own: w x / 2. So squares are
    # w^2 5 / 4 and w^2 109 / 4, and the mean of their gradients is 2 w 114 / 8.
    assert [rank["theirs"] for rank in ranks] == [([1.5, 3.0], 85.5), ([4.5, 15.0], 85.5)]


# --- ema, grouped and residual


def library_of_means(**options: Any) -> reference.VectorQuantize:
    arguments = {
        "dim": DIM,
        "codebook_size": SIZE,
        "decay": 0.8,
        "commitment_weight": 0.25,
        "threshold_ema_dead_code": 0,
        "kmeans_init": False,
        "rotation_trick": False,
        "accept_image_fmap": True,
    }
    return reference.VectorQuantize(**{**arguments, **options}).train()


def state_pairs(ours: EMA, theirs: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Before the first step both have counts of one, and sums that are the codes.

    Where codes come from differs: theirs are drawn; ours are latents, by ``initialize``, with such
    counts and sums also after k-means, where theirs have those of the clusters.
    """
    return [
        (ours.vectors, theirs.embed[0]),
        (ours.average_counts, theirs.cluster_size[0]),
        (ours.average_sums, theirs.embed_avg[0]),
    ]


@pytest.mark.parametrize("source", ["ours", "theirs"])
@pytest.mark.parametrize("l2_normalize", [False, True])
@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_ema_equals_the_library_step_after_step(
    source: str, l2_normalize: bool, gradient: str
) -> None:
    ours = EMA(
        size=SIZE, **{**EMA_ARGUMENTS, "l2_normalize": l2_normalize, "gradient": gradient}
    ).train()
    theirs = library_of_means(use_cosine_sim=l2_normalize, rotation_trick=gradient == "rotation")
    pairs = state_pairs(ours, theirs._codebook)
    for mine, other in pairs:
        if source == "ours":
            other.copy_(mine)
        else:
            mine.copy_(other)
    assert torch.equal(ours.average_counts, torch.ones(SIZE))
    assert torch.equal(ours.average_sums, ours.vectors)
    for step in range(5):
        z = latents()
        quantized = ours(z)
        z_q, ids, loss, breakdown = theirs(z, return_loss_breakdown=True)
        assert torch.equal(quantized.token_ids[:, 0], ids)
        close(quantized.z_q, z_q, FLOAT32)
        close(quantized.metrics["distance"], breakdown.commitment.detach(), FLOAT32)
        close(quantized.loss, loss, FLOAT32)
        close(gradients(quantized.z_q, quantized.loss, z), gradients(z_q, loss, z), FLOAT32)
        ours.update(step)
        for mine, other in pairs:
            close(mine, other, FLOAT32)
    assert (ours.average_counts - 1).abs().max() > 0.5


def test_ema_smooths_the_counts_of_codes_that_never_win_as_the_library_does() -> None:
    ours = EMA(size=SIZE, **{**EMA_ARGUMENTS, "decay": 0.1}).train()
    theirs = library_of_means(decay=0.1)
    ours.vectors[0] = ours.average_sums[0] = 100.0
    pairs = state_pairs(ours, theirs._codebook)
    for mine, other in pairs:
        other.copy_(mine)
    for step in range(5):
        z = latents()
        ours(z)
        theirs(z)
        ours.update(step)
        for pair in pairs:
            close(*pair, FLOAT32)
    # After five steps its count is 1e-5 and its sum 1e-3; the smoothing adds 1e-5 to the count.
    close(ours.average_counts[0], torch.tensor(1e-5))
    close(ours.vectors[0], torch.full((DIM,), 50.0), {"rtol": 1e-4, "atol": 0.0})


def test_grouped_equals_the_heads_of_the_library() -> None:
    groups = 2
    ours = Grouped(size=SIZE, num_codebooks=groups, inner={**EMA_ARGUMENTS, "kind": "ema"}).train()
    theirs = library_of_means(
        dim=groups * DIM, codebook_dim=DIM, heads=groups, separate_codebook_per_head=True
    )
    book = theirs._codebook
    pairs = [
        pair
        for number, group in enumerate(ours.groups)
        for pair in (
            (group.vectors, book.embed[number]),
            (group.average_counts, book.cluster_size[number]),
            (group.average_sums, book.embed_avg[number]),
        )
    ]
    for mine, other in pairs:
        other.copy_(mine)
    for step in range(3):
        z = latents(groups * DIM)
        quantized = ours(z)
        z_q, ids, loss = theirs(z)
        assert torch.equal(quantized.token_ids, ids.permute(0, 3, 1, 2))
        close(quantized.z_q, z_q, FLOAT32)
        close(quantized.loss, loss, FLOAT32)
        close(gradients(quantized.z_q, quantized.loss, z), gradients(z_q, loss, z), FLOAT32)
        ours.update(step)
        for pair in pairs:
            close(*pair, FLOAT32)


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_residual_equals_the_library_but_for_the_gradient_of_z_q(gradient: str) -> None:
    depth = 3
    ours = Residual(
        size=SIZE,
        num_codebooks=depth,
        shared=False,
        shrink=1.0,
        inner={**EMA_ARGUMENTS, "kind": "ema", "gradient": gradient},
    ).train()
    theirs = reference.ResidualVQ(
        dim=DIM,
        num_quantizers=depth,
        codebook_size=SIZE,
        decay=0.8,
        commitment_weight=0.25,
        threshold_ema_dead_code=0,
        rotation_trick=gradient == "rotation",
    ).train()
    pairs = [
        pair
        for level, layer in zip(ours.levels, theirs.layers, strict=True)
        for pair in state_pairs(level, layer._codebook)
    ]
    for mine, other in pairs:
        mine.copy_(other)
    for step in range(3):
        z = latents(DIM, (15,))
        quantized = ours(z)
        z_q, ids, losses = theirs(z.mT)
        z_q = z_q.mT
        assert torch.equal(quantized.token_ids, ids.permute(0, 2, 1))
        close(quantized.z_q, z_q, FLOAT32)
        close(quantized.loss, losses.mean(), FLOAT32)
        (mine,), (other,) = (
            torch.autograd.grad(loss, z, retain_graph=True)
            for loss in (quantized.loss, losses.mean())
        )
        close(mine, other, FLOAT32)
        # In theirs each depth adds z itself, with all that its straight-through term carries.
        nothing = torch.zeros(())
        (mine,), (other,) = gradients(quantized.z_q, nothing, z), gradients(z_q, nothing, z)
        close(depth * mine, other, FLOAT32)
        ours.update(step)
        for pair in pairs:
            close(*pair, FLOAT32)


def test_the_gradient_of_a_residual_z_q_is_the_identity_where_the_library_has_its_multiple() -> (
    None
):
    depth = 4
    ours = Residual(
        size=SIZE,
        num_codebooks=depth,
        shared=False,
        shrink=1.0,
        inner={**EMA_ARGUMENTS, "kind": "ema"},
    ).train()
    theirs = reference.ResidualVQ(
        dim=DIM, num_quantizers=depth, codebook_size=SIZE, rotation_trick=False
    ).train()

    def one_vector(z: Tensor) -> Tensor:
        return ours(z[None, :, None]).z_q.flatten()

    def one_vector_of_theirs(z: Tensor) -> Tensor:
        return theirs(z[None, None])[0].flatten()

    z = torch.randn(DIM, requires_grad=True)
    # z_q = sum over depths of r + sg(e - r), where each rest r is z less a constant.
    close(torch.autograd.functional.jacobian(one_vector, z), torch.eye(DIM))
    close(torch.autograd.functional.jacobian(one_vector_of_theirs, z), depth * torch.eye(DIM))


# --- simvq and the rotation trick


@pytest.mark.parametrize("gradient", ["straight_through", "rotation"])
def test_simvq_equals_the_library(gradient: str) -> None:
    ours = SimVQ(
        size=SIZE, dim=DIM, codebook_weight=1.0, commitment_weight=0.25, gradient=gradient
    ).train()
    theirs = reference.SimVQ(
        DIM,
        SIZE,
        codebook_transform=torch.nn.Linear(DIM, DIM),
        channel_first=True,
        rotation_trick=gradient == "rotation",
        commitment_weight=1.0,
        input_to_quantize_commit_loss_weight=0.25,
    ).train()
    theirs.frozen_codebook.copy_(ours.frozen)
    theirs.code_transform.load_state_dict(ours.map.state_dict())
    z = latents()
    quantized = ours(z)
    z_q, ids, loss = theirs(z)
    assert torch.equal(quantized.token_ids[:, 0], ids)
    assert torch.equal(ours.decode(quantized.token_ids), theirs.indices_to_codes(ids))
    close(quantized.z_q, z_q)
    close(quantized.loss, loss)
    close(
        gradients(quantized.z_q, quantized.loss, z, *ours.map.parameters()),
        gradients(z_q, loss, z, *theirs.code_transform.parameters()),
    )


def test_rotation_equals_the_library() -> None:
    z, z_q = latents(), torch.randn(2, DIM, 3, 5, requires_grad=True)
    ours, theirs = rotation(z, z_q), rotate_to(z.movedim(1, -1), z_q.movedim(1, -1)).movedim(-1, 1)
    assert torch.equal(ours, z_q)
    close(ours, theirs)
    nothing = torch.zeros(())
    close(gradients(ours, nothing, z), gradients(theirs, nothing, z))
    with pytest.raises(RuntimeError, match="not have been used"):
        gradients(ours, nothing, z_q)  # no gradient moves the codes; nor does it in theirs
    with pytest.raises(RuntimeError, match="not have been used"):
        gradients(theirs, nothing, z_q)


def test_rotation_has_the_gradient_of_a_rotation_matrix() -> None:
    for dim in (2, 3, 8):
        z, z_q, weights = torch.randn(3, dim)
        z.requires_grad_()
        u, q = F.normalize(z.detach(), dim=0), F.normalize(z_q, dim=0)
        # The turn by the angle between u and q in their plane, and none in other directions.
        beside = F.normalize(q - (q @ u) * u, dim=0)
        turn = torch.outer(beside, u) - torch.outer(u, beside)
        matrix = torch.linalg.matrix_exp(torch.acos(u @ q) * turn)
        close(matrix @ u, q)
        found = rotation(z[None, :, None], z_q[None, :, None]).flatten()
        (gradient,) = torch.autograd.grad(found @ weights, z)
        close(gradient, z_q.norm() / z.detach().norm() * (matrix.T @ weights))


# --- vq

VQ_ARGUMENTS = {
    "size": SIZE,
    "dim": DIM,
    "codebook_weight": 1.0,
    "commitment_weight": 0.25,
    "l2_normalize": False,
    "gradient": "straight_through",
    "kmeans_iterations": 0,
    "decay": 0.9,
    "restart_below": 0.0,
    "entropy_weight": 0.0,
    "entropy_temperature": 0.01,
    "sampling_temperature": 0.0,
}


@pytest.mark.parametrize("library", [taming.VectorQuantizer2, vq_model.VectorQuantizer])
@pytest.mark.parametrize("legacy", [True, False])
def test_vq_equals_the_libraries(library: type[nn.Module], legacy: bool) -> None:
    beta = 0.3
    codebook_weight, commitment_weight = (beta, 1.0) if legacy else (1.0, beta)
    weights = {"codebook_weight": codebook_weight, "commitment_weight": commitment_weight}
    ours = VQ(**{**VQ_ARGUMENTS, **weights}).train()
    theirs = library(SIZE, DIM, beta=beta, legacy=legacy, sane_index_shape=True).train()
    nn.init.normal_(ours.vectors)
    theirs.embedding.weight.data.copy_(ours.vectors.detach())
    z = latents()
    quantized = ours(z)
    z_q, loss, (_, _, ids) = theirs(z)
    assert torch.equal(quantized.token_ids[:, 0], ids)
    assert ids.unique().numel() > 2
    close(quantized.z_q, z_q)
    close(quantized.loss, loss)
    close(
        gradients(quantized.z_q, quantized.loss, z, ours.vectors),
        gradients(z_q, loss, z, theirs.embedding.weight),
    )


@pytest.mark.parametrize("l2_normalize", [False, True])
def test_the_entropy_loss_of_vq_is_that_of_a_plain_softmax(l2_normalize: bool) -> None:
    changes = {
        "entropy_weight": 0.2,
        "entropy_temperature": 0.5,
        "l2_normalize": l2_normalize,
    }
    codebook = VQ(**{**VQ_ARGUMENTS, **changes}).train()
    nn.init.normal_(codebook.vectors)
    z = latents()
    quantized = codebook(z)
    flat, table = to_vectors(z), codebook.vectors
    if l2_normalize:
        flat, table = F.normalize(flat, dim=1), F.normalize(table, dim=1)
    squared = squared_distances(flat, table)
    each, of_all = entropies_of((-squared / 0.5).softmax(1))
    chosen = table[squared.argmin(1)]
    loss = F.mse_loss(chosen, flat.detach()) + 0.25 * F.mse_loss(flat, chosen.detach())
    loss = loss + 0.2 * (each - of_all)
    close(quantized.metrics["per_sample_entropy"], each.detach())
    close(quantized.metrics["codebook_entropy"], of_all.detach())
    close(quantized.loss, loss)
    close(
        torch.autograd.grad(quantized.loss, (z, codebook.vectors)),
        torch.autograd.grad(loss, (z, codebook.vectors)),
    )


# --- gumbel and ibq


def make_gumbel() -> Gumbel:
    return Gumbel(
        size=SIZE,
        dim=DIM,
        kl_weight=0.3,
        temperature=0.7,
        final_temperature=0.1,
        temperature_steps=10,
    ).train()


def gumbel_noise(codebook: Gumbel, z: Tensor) -> Tensor:
    """The noise of the codebook's next call."""
    n = z.shape[0] * z.shape[2:].numel()
    noise = codebook.noise.next_call(z.shape[0]).gumbel(torch.empty(n, SIZE), 0)
    codebook.noise.discard_step()
    return noise


def test_gumbel_equals_its_formula() -> None:
    codebook, z = make_gumbel(), latents()
    noise = gumbel_noise(codebook, z)
    quantized = codebook(z)
    weight, bias = codebook.scores.weight, codebook.scores.bias
    scores = to_vectors(z) @ weight.T + bias
    mixture = ((scores + noise) / 0.7).softmax(1) @ codebook.vectors
    q = scores.softmax(1)
    divergence = (q * (q * SIZE).log()).sum(1).mean()
    assert torch.equal(quantized.token_ids.flatten(), scores.argmax(1))
    z_q = to_grid(mixture, quantized.token_ids[:, 0])
    close(quantized.z_q, z_q)
    close(quantized.loss, 0.3 * divergence)
    leaves = (z, weight, bias, codebook.vectors)
    close(
        gradients(quantized.z_q, quantized.loss, *leaves),
        gradients(z_q, 0.3 * divergence, *leaves),
    )


def test_gumbel_equals_the_library_with_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, z = make_gumbel(), latents()
    theirs = taming.GumbelQuantize(
        DIM, DIM, SIZE, straight_through=False, kl_weight=0.3, temp_init=0.7
    ).train()
    with torch.no_grad():
        theirs.proj.weight.copy_(ours.scores.weight[:, :, None, None])
        theirs.proj.bias.copy_(ours.scores.bias)
        theirs.embed.weight.copy_(ours.vectors)
    noise = gumbel_noise(ours, z).reshape(2, 3, 5, SIZE).permute(0, 3, 1, 2)

    def softmax_with_noise(logits: Tensor, tau: float, dim: int, hard: bool) -> Tensor:
        assert not hard
        return ((logits + noise) / tau).softmax(dim)

    monkeypatch.setattr(F, "gumbel_softmax", softmax_with_noise)
    quantized = ours(z)
    z_q, loss, _ = theirs(z)
    close(quantized.z_q, z_q)
    # Theirs adds 1e-10 to what it takes the logarithm of.
    tolerance = {"rtol": 1e-7, "atol": 1e-9}
    close(quantized.loss, loss, tolerance)
    mine = gradients(
        quantized.z_q, quantized.loss, z, ours.scores.weight, ours.scores.bias, ours.vectors
    )
    other = gradients(z_q, loss, z, theirs.proj.weight, theirs.proj.bias, theirs.embed.weight)
    for a, b in zip(mine, other, strict=True):
        close(a, b.reshape(a.shape), tolerance)


def test_the_temperature_of_gumbel_falls_along_a_cosine() -> None:
    codebook = Gumbel(
        size=SIZE,
        dim=DIM,
        kl_weight=0.0,
        temperature=2.0,
        final_temperature=1.0,
        temperature_steps=4,
    )
    found = [codebook.update(step)["temperature"].item() for step in range(7)]
    # 1 + (1 + cos(pi step / 4)) / 2: the cosines are 1, sqrt(1/2), 0, -sqrt(1/2), -1.
    assert found == pytest.approx([2, 1.8535533906, 1.5, 1.1464466094, 1, 1, 1])


@pytest.mark.parametrize("entropy_weight", [0.0, 0.2])
def test_ibq_equals_its_formula(entropy_weight: float) -> None:
    codebook = IBQ(
        size=SIZE,
        dim=DIM,
        index_weight=0.9,
        codebook_weight=0.25,
        commitment_weight=0.7,
        entropy_weight=entropy_weight,
        entropy_temperature=0.5,
    ).train()
    nn.init.normal_(codebook.vectors)
    z, table = latents(), codebook.vectors
    quantized = codebook(z)
    flat = to_vectors(z)
    logits = flat @ table.T
    soft = logits.softmax(1)
    hard = F.one_hot(logits.argmax(1), SIZE).double()
    chosen = hard @ table
    with_index = (hard - soft.detach() + soft) @ table
    each, of_all = entropies_of((logits / 0.5).softmax(1))
    loss = (
        0.9 * (with_index - flat).square().mean()
        + 0.25 * (chosen - flat.detach()).square().mean()
        + 0.7 * (chosen.detach() - flat).square().mean()
        + entropy_weight * (each - of_all)
    )
    assert torch.equal(quantized.token_ids.flatten(), logits.argmax(1))
    z_q = to_grid(with_index, quantized.token_ids[:, 0])
    close(quantized.z_q, z_q)
    close(quantized.loss, loss)
    close(gradients(quantized.z_q, quantized.loss, z, table), gradients(z_q, loss, z, table))


# --- kl and multiscale


def test_kl_is_the_divergence_of_normal_distributions() -> None:
    codebook = KL(size=None, dim=DIM, kl_weight=0.3).train()
    z = latents(2 * DIM)
    noise = codebook.noise.next_call(2).normal(z[:, :DIM])
    codebook.noise.discard_step()
    quantized = codebook(z)
    mean, log_variance = z.chunk(2, dim=1)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    loss = 0.3 * torch.distributions.kl_divergence(posterior, prior).mean()
    z_q = posterior.mean + posterior.stddev * noise
    close(quantized.z_q, z_q)
    close(quantized.loss, loss)
    close(gradients(quantized.z_q, quantized.loss, z), gradients(z_q, loss, z))


# Places of convolutions from 0 to 1 are 1/12, 13/36, 23/36, 11/12, or 1/6 and 5/6, or 1/3; scales
# are at 0, 1/3, 2/3 and 1.
@pytest.mark.parametrize(
    ("num_convolutions", "convolution_of"), [(4, [0, 1, 2, 3]), (2, [0, 0, 1, 1]), (1, [0] * 4)]
)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.3])
def test_multiscale_equals_a_plain_loop(
    num_convolutions: int, convolution_of: list[int], share: float
) -> None:
    scales = [1, 2, 3, 5]
    codebook = MultiScale(
        size=SIZE,
        scales=scales,
        num_convolutions=num_convolutions,
        convolution_share=share,
        convolution_weight=0.6,
        inner={**EMA_ARGUMENTS, "kind": "ema"},
    ).train()
    table = codebook.codebook.vectors
    z = latents(DIM, (5, 5))
    quantized = codebook(z)
    rest, f_hat = z, torch.zeros_like(z)
    ids: list[Tensor] = []
    commitments, errors = torch.zeros(()), torch.zeros(())
    for scale, number in zip(scales, convolution_of, strict=True):
        down = F.interpolate(rest, size=(scale, scale), mode="area")
        flat = down.permute(0, 2, 3, 1).reshape(-1, DIM)
        found = torch.cdist(flat, table).argmin(1)
        ids.append(found.reshape(2, scale * scale))
        code = table[found].reshape(2, scale, scale, DIM).permute(0, 3, 1, 2)
        commitments = commitments + 0.25 * (down - code).square().mean()
        h = code if scale == 5 else F.interpolate(code, size=(5, 5), mode="bicubic")
        phi = (1 - share) * h + share * codebook.convolutions[number](h)
        rest = rest - phi.detach()
        f_hat = f_hat.detach() + phi  # each scale teaches its own convolution
        errors = errors + (f_hat - z.detach()).square().mean()
    assert torch.equal(quantized.token_ids[:, 0], torch.cat(ids, 1))
    close(quantized.z_q, f_hat)
    loss = (commitments + 0.6 * errors) / 4
    close(quantized.loss, loss)
    leaves = (z, *codebook.convolutions.parameters()) if share else (z,)
    close(
        gradients(quantized.z_q, quantized.loss, *leaves),
        gradients(f_hat.detach() + z - z.detach(), loss, *leaves),
    )


def test_every_kind_is_compared() -> None:
    compared = {BSQ, EMA, FSQ, Grouped, Gumbel, IBQ, KL, LFQ, MultiScale, Residual, SimVQ, VQ}
    compared |= {Hierarchical, Continuous, Gaussian}  # in their own tests
    assert {resolve("codebook", kind) for kind in kinds("codebook")} == compared
