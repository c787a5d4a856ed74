"""What the metrics of structural similarity share."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from vqtrain.metrics.base import SampleMetric, check_pair

WINDOW = "Gaussian window of 11 px, sigma 1.5 px, range 255, K1 0.01, K2 0.03, all channels"


def of_each(
    metric: SampleMetric,
    measure: Callable[..., Any],
    reconstruction: Tensor,
    original: Tensor,
    **options: str,
) -> Float64[Tensor, " b"]:
    """Measure one by one: a convolution may round an image differently in another batch.

    Args:
        metric: It says what samples are taken.
        measure: A function of torchmetrics.
        reconstruction: Pixels of the reconstructions.
        original: Pixels of their originals.
        **options: Of ``measure``.
    """
    check_pair(metric, reconstruction, original)
    pairs = zip(reconstruction.double(), original.double(), strict=True)
    return torch.stack([measure(a[None], b[None], data_range=255.0, **options) for a, b in pairs])
