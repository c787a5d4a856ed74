"""Grids, lists, and the straight-through gradient."""

import torch

from vqtrain.codebooks.parts.vectors import rotation, straight_through, to_grid, to_vectors


def test_vectors_go_through_images_row_by_row() -> None:
    z = torch.arange(16.0).reshape(2, 2, 2, 2)
    # Image 0 holds channels 0..3 and 4..7: its first row of positions is (0, 4) and (1, 5).
    assert to_vectors(z)[:2].tolist() == [[0.0, 4.0], [1.0, 5.0]]
    ids = torch.zeros(2, 2, 2, dtype=torch.int64)
    assert torch.equal(to_grid(to_vectors(z), ids), z)


def test_straight_through_is_exact_where_the_usual_sum_is_not() -> None:
    z = torch.tensor([1e4, 1.0], requires_grad=True)
    z_q = torch.tensor([0.1, 0.3])
    assert not torch.equal(z + (z_q - z).detach(), z_q)
    passed = straight_through(z, z_q)
    assert torch.equal(passed, z_q)
    (passed * torch.tensor([2.0, 3.0])).sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [2.0, 3.0]


def test_a_rotation_turns_and_stretches_gradients_as_it_turns_vectors() -> None:
    # (1, 0) goes to (0, 2): a quarter turn to the left, and twice the length.
    z = torch.tensor([[[1.0], [0.0]]], requires_grad=True)
    z_q = torch.tensor([[[0.0], [2.0]]])
    passed = rotation(z, z_q)
    assert torch.equal(passed, z_q)
    passed[0, 0].sum().backward()
    # The output's first channel is -2 times the input's second one.
    assert z.grad is not None
    torch.testing.assert_close(z.grad, torch.tensor([[[0.0], [-2.0]]]))


def test_a_rotation_of_nothing_is_finite() -> None:
    z = torch.zeros(1, 3, 2, requires_grad=True)
    rotation(z, torch.zeros(1, 3, 2)).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
