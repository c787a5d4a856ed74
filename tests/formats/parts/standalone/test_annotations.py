"""Annotations without jaxtyping."""

import torch
from torch import Tensor

from vqtrain.formats.parts.standalone.annotations import Float, Int64


def test_an_annotation_is_the_type_in_it() -> None:
    assert Float[Tensor, "b c *grid"] is Tensor
    assert Int64[Tensor, " b"] | None == Tensor | None
    assert isinstance(torch.zeros(1), Float[Tensor, "n"])
