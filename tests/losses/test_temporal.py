"""The error of changes over time against values by hand."""

import torch

from vqtrain.losses.temporal import Temporal


def test_it_is_the_mean_absolute_difference_of_changes() -> None:
    # Changes of the one are 3 and -5, of the other 1 and 1: |3 - 1| and |-5 - 1|, 4 on average.
    made = torch.tensor([[1.0, 4.0, -1.0]]).reshape(1, 1, 3, 1, 1).requires_grad_()
    given = torch.tensor([[0.0, 1.0, 2.0]]).reshape(1, 1, 3, 1, 1)
    loss = Temporal()(made, given)
    assert loss.item() == 4
    (gradient,) = torch.autograd.grad(loss, made)
    # By the first frame -1 / 2 of the first change, by the last -1 / 2 of the second.
    assert gradient.flatten().tolist() == [-0.5, 1.0, -0.5]


def test_what_does_not_change_does_not_count() -> None:
    clips = torch.rand(2, 3, 4, 5, 6, dtype=torch.float64) * 2 - 1
    steady = clips + torch.rand(2, 3, 1, 5, 6)
    assert Temporal()(steady, clips).item() < 1e-9
    image = torch.rand(2, 3, 1, 5, 6, requires_grad=True)
    loss = Temporal()(image, torch.zeros_like(image))
    loss.backward()
    assert loss.item() == 0
    assert image.grad is not None
    assert not image.grad.any()
