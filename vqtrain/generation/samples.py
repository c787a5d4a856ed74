"""How near sampled images come to real ones as a set."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from vqtrain.metrics.fid import FID
from vqtrain.metrics.parts.moments import Moments, frechet_distance
from vqtrain.shapes import Pixels

NEIGHBORS = 3  # whose farthest is the radius of an image
MAX_ROWS = 2**12  # of distances at once


def measure_samples(
    fid: FID,
    sampled: Pixels,
    real: UInt8[Tensor, "n c *size"],
    *,
    device: torch.device,
    batch_size: int,
) -> dict[str, float]:
    """Return ``fid``, ``precision`` and ``recall`` of sampled images.

    All depend on the numbers of images; below some thousand FID says little. An image is covered
    by a set if it is no farther from one of its images than that image's third nearest neighbor in
    the set. Precision is the share of sampled images that the real ones cover, recall the share of
    real images that the sampled ones cover; neither is there with three images or fewer.

    Args:
        fid: With its weights, on the device.
        sampled: The sampled images, at least 2.
        real: The real images, at least 2.
        device: That computes.
        batch_size: Images at once.

    References:
        FID: Heusel et al. 2017, arXiv:1706.08500. Precision and recall: Kynkaanniemi et al. 2019,
        arXiv:1904.06991, computed by torch-fidelity. Deviation: features of Inception in place of
        VGG-16, as Dhariwal and Nichol 2021, arXiv:2105.05233.
    """
    from torch_fidelity.metric_prc import calculate_precision_recall_part  # slow to import

    sets = [_features(fid, pixels, device, batch_size) for pixels in (sampled, real)]
    moments = []
    for features in sets:
        own = Moments(dim=features.shape[1], device=features.device)
        own.add(features, torch.ones(len(features), dtype=torch.bool, device=features.device))
        moments.append(own)
    found = {"fid": frechet_distance(*moments)}
    if min(map(len, sets)) > NEIGHBORS:
        # In float64: matrix products in float32 are too coarse for distances of near features.
        wide = [features.double() for features in sets]
        precision, recall = calculate_precision_recall_part(*wide, NEIGHBORS, MAX_ROWS)
        found |= {"precision": precision, "recall": recall}
    return found


def _features(
    fid: FID, pixels: Pixels, device: torch.device, batch_size: int
) -> Float[Tensor, "n d"]:
    """Return the features of images."""
    batches = torch.split(pixels, batch_size)
    return torch.cat([fid.features_of_pixels(batch.to(device)) for batch in batches])
