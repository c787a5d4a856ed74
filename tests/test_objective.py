"""The terms of the objective, by hand."""

import pytest
import torch

from vqtrain.codebooks.base import Quantized
from vqtrain.losses.reconstruction import ReconstructionLoss
from vqtrain.objective import Objective
from vqtrain.tokenizer.model import Reconstruction


def test_the_total_is_the_sum_of_what_is_logged_and_alone_has_a_gradient() -> None:
    images = torch.zeros(2, 3, 4, 4)
    made = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    codebook_loss = torch.tensor(0.25, requires_grad=True)
    quantized = Quantized(
        z_q=torch.zeros(2, 1, 1, 1),
        token_ids=torch.zeros(2, 1, 1, 1, dtype=torch.int64),
        loss=codebook_loss,
    )
    objective = Objective(reconstruction=ReconstructionLoss(l1=1.0, l2=0.0, weight=4.0))
    terms = objective(images, Reconstruction(images=made, quantized=quantized))
    # 4 * |0.5 - 0| = 2, and 2 + 0.25 = 2.25.
    assert {name: part.item() for name, part in terms.parts.items()} == {
        "reconstruction": 2.0,
        "codebook": 0.25,
    }
    assert terms.total.item() == pytest.approx(2.25)
    assert not any(part.requires_grad for part in terms.parts.values())
    terms.total.backward()
    assert codebook_loss.grad is not None
    assert codebook_loss.grad.item() == 1.0
    assert made.grad is not None
    # The mean is over 2 * 3 * 4 * 4 = 96 values: each has the gradient 4 / 96.
    torch.testing.assert_close(made.grad, torch.full_like(made, 4 / 96))
