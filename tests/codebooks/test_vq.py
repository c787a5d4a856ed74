"""VQ against numbers worked out by hand, and its two gradients."""

import pytest
import torch

from vqtrain.codebooks.vq import VQ
from vqtrain.errors import ConfigError


def make(**changes: object) -> VQ:
    arguments: dict[str, object] = {
        "size": 2,
        "dim": 2,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "l2_normalize": False,
        "gradient": "straight_through",
        "kmeans_iterations": 0,
        "decay": 0.5,
        "restart_below": 0.0,
        "entropy_weight": 0.0,
        "entropy_temperature": 0.01,
        "sampling_temperature": 0.0,
    }
    codebook = VQ(**{**arguments, **changes})  # type: ignore[arg-type]  # plain data
    if codebook.vectors.shape == (2, 2):
        with torch.no_grad():
            codebook.vectors.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    return codebook


def test_ids_codes_and_loss_by_hand() -> None:
    # Columns (0.2, 0.1) and (1, 1): the first is nearest to code 0, the second to code 1.
    z = torch.tensor([[[0.2, 1.0], [0.1, 1.0]]])
    quantized = make()(z)
    assert quantized.token_ids.tolist() == [[[0, 1]]]
    torch.testing.assert_close(quantized.z_q, torch.tensor([[[0.0, 1.0], [0.0, 2.0]]]))
    # Squared differences .04, .01, 0, 1: mean .2625, times codebook 1 + commitment .25.
    torch.testing.assert_close(quantized.loss, torch.tensor(0.2625 * 1.25))


def test_each_weight_moves_its_own_side() -> None:
    z = torch.tensor([[[0.2], [0.1]]], requires_grad=True)
    codebook = make(commitment_weight=0.5)
    codebook(z).loss.backward()
    # d/dz of .5 * mean((z - e)^2) over two elements: .5 * (z - e).
    torch.testing.assert_close(z.grad, torch.tensor([[[0.1], [0.05]]]))
    # d/de of 1 * mean((e - z)^2): e - z for the code that won, nothing for the other.
    torch.testing.assert_close(codebook.vectors.grad, torch.tensor([[-0.2, -0.1], [0.0, 0.0]]))


def test_normalized_lookup_compares_directions() -> None:
    codebook = make(l2_normalize=True)
    with torch.no_grad():
        codebook.vectors.copy_(torch.tensor([[0.1, 0.0], [3.0, 3.0]]))
    # (5, 1) points along the first axis, although the other code is nearer.
    quantized = codebook(torch.tensor([[[5.0], [1.0]]]))
    assert quantized.token_ids.item() == 0
    torch.testing.assert_close(quantized.z_q, torch.tensor([[[1.0], [0.0]]]))


def test_initialize_takes_vectors_of_the_data() -> None:
    codebook = make()
    z = torch.arange(16.0).reshape(1, 2, 8)
    codebook.initialize(z)
    columns = {tuple(column) for column in z[0].T.tolist()}
    codes = {tuple(row) for row in codebook.vectors.tolist()}
    assert codes <= columns
    assert len(codes) == 2


def test_a_code_that_never_wins_restarts_on_a_latent_of_the_step() -> None:
    codebook = make(restart_below=0.3).train()
    z = torch.tensor([[[0.2, -0.1, 0.1], [0.1, 0.0, 0.3]]])  # all nearest to code 0
    for step in range(2):
        codebook(z)
        restarts = codebook.update(step)["restarts"]
    # Counts after two steps: code 0 has 1 -> 2 -> 2.5, code 1 has 1 -> 0.5 -> 0.25. 0.25 is below
    # 0.3 of their mean, 1.375; then it counts as one that wins as often as the mean.
    assert restarts.item() == 1
    torch.testing.assert_close(codebook.average_counts.tolist(), [2.5, 1.375])
    restarted = tuple(codebook.vectors[1].tolist())
    assert restarted in {tuple(column) for column in z[0].T.tolist()}
    assert codebook.vectors[0].tolist() == [0.0, 0.0]


def mixture(centers: torch.Tensor, count: int, spread: float) -> torch.Tensor:
    drawn = centers[torch.randint(len(centers), (count,))]
    return (drawn + spread * torch.randn_like(drawn)).T[None]


@pytest.mark.parametrize("helped", [True, False], ids=["with-help", "without"])
def test_starts_and_restarts_use_all_of_as_many_codes_as_clusters(helped: bool) -> None:
    centers = 10 * torch.randn(64, 8)
    codebook = make(size=64, dim=8, decay=0.9, restart_below=0.1 if helped else 0.0).train()
    optimizer = torch.optim.Adam(codebook.parameters(), lr=0.01)
    counts = torch.zeros(64)
    for step in range(300):
        z = mixture(centers, 512, 0.1)
        if step == 0 and helped:
            codebook.initialize(z)
        optimizer.zero_grad()
        quantized = codebook(z)
        quantized.loss.backward()
        optimizer.step()
        codebook.update(step)
        if step >= 290:
            counts += torch.bincount(quantized.token_ids.flatten(), minlength=64)
    usage = (counts > 0).double().mean()
    assert usage > 0.95 if helped else usage < 0.6


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"commitment_weight": -1.0}, "commitment_weight must be at least 0, got -1.0"),
        ({"entropy_weight": -1.0}, "entropy_weight must be at least 0, got -1.0"),
        ({"entropy_temperature": 0.0}, "entropy_temperature must be above 0"),
        ({"decay": 1.0}, "decay must be in"),
        ({"restart_below": -0.1}, "restart_below must be in"),
        ({"gradient": "none"}, "one of straight_through, rotation, got 'none'"),
    ],
)
def test_impossible_arguments_are_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make(**changes)
