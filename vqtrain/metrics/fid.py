"""FID: the distance between the distributions of two sets of images, as torch-fidelity has it."""

import io
from typing import final

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from vqtrain import weights
from vqtrain.distributed import all_reduce_sum
from vqtrain.errors import ConfigError, WeightsError
from vqtrain.ops.precision import without_autocast
from vqtrain.shapes import Mask, Pixels

FEATURES = 2048


def load_inception(given: str | None) -> nn.Module:
    """Build the Inception network of torch-fidelity, with its weights.

    It takes pixels as uint8 and returns a tuple of one tensor, features [b, 2048] in float32. The
    resizing to 299 px is TensorFlow 1's, without antialiasing.

    Args:
        given: Path of torch-fidelity's file of weights; None to look in torch's cache.

    Raises:
        WeightsError: If the weights are missing, damaged or those of another network.
    """
    # It imports torchvision, which takes seconds, and most runs do without both.
    from torch_fidelity import FeatureExtractorInceptionV3

    file = weights.find("inception", given)
    # torch-fidelity loads with weights_only=False, which runs what a file says. So it is handed a
    # copy of the tensors alone.
    copy = io.BytesIO()
    torch.save(weights.read(file), copy)
    copy.seek(0)
    try:
        network = FeatureExtractorInceptionV3(
            "inception", [str(FEATURES)], feature_extractor_weights_path=copy
        )
    except RuntimeError as error:
        raise WeightsError(
            f"cannot use {file}: it does not hold the weights of torch-fidelity's Inception, as "
            f"{weights.KNOWN['inception'].name} does"
        ) from error
    assert isinstance(network, nn.Module), "a feature extractor is a module"
    return network


def in_color(pixels: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b 3 h w"]:
    """Repeat gray images to the three channels that Inception takes.

    Raises:
        ConfigError: If images have neither 1 nor 3 channels.
    """
    if pixels.shape[1] not in (1, 3):
        raise ConfigError(f"FID needs images of 1 or 3 channels, got {pixels.shape[1]}")
    return pixels.expand(-1, 3, -1, -1)


@final
class Moments:
    """Count, sum and sum of outer products of features, in float64, of which ranks add up theirs.

    The three are one matrix, the sum of outer products of [1, features] with itself.

    Args:
        dim: Number of features of an image.
        device: Where the features are, also on a rank that gets none.
    """

    def __init__(self, *, dim: int, device: torch.device) -> None:
        self.sums = torch.zeros(1 + dim, 1 + dim, dtype=torch.float64, device=device)

    def add(self, features: Float[Tensor, "b d"], mask: Mask) -> None:
        """Add the features of a batch.

        Args:
            features: Of one image a row.
            mask: False for images that only fill up the batch; their features are ignored.
        """
        rows = torch.cat([torch.ones_like(features[:, :1]), features], dim=1).double()
        # Multiplication by the mask would keep a NaN of an image that does not count.
        rows = torch.where(mask[:, None], rows, 0.0)
        self.sums.addmm_(rows.T, rows)

    def reduced(self) -> "Moments":
        """Return the moments over all ranks; every rank must call it."""
        total = Moments(dim=len(self.sums) - 1, device=self.sums.device)
        total.sums = all_reduce_sum(self.sums)
        return total

    def to(self, device: torch.device) -> "Moments":
        """Move the sums."""
        self.sums = self.sums.to(device)
        return self

    @property
    def count(self) -> int:
        """The number of images."""
        return int(self.sums[0, 0])

    @property
    def mean(self) -> Float64[Tensor, " d"]:
        """The mean of the features; NaN without images."""
        return self.sums[0, 1:] / self.sums[0, 0]

    @property
    def covariance(self) -> Float64[Tensor, "d d"]:
        """The unbiased covariance of the features; not finite with fewer than 2 images."""
        count, mean = self.sums[0, 0], self.mean
        return (self.sums[1:, 1:] - count * torch.outer(mean, mean)) / (count - 1)


def frechet_distance(first: Moments, second: Moments) -> float:
    """Return the squared Frechet distance of two normal distributions with these moments.

    It is worked out on the CPU, which takes seconds for 2048 features.

    Returns:
        At least 0; NaN if one of the two has fewer than 2 images, or features that are no numbers.

    References:
        Dowson and Landau 1982; Heusel et al. 2017, arXiv:1706.08500.
    """
    if min(first.count, second.count) < 2:
        return float("nan")
    difference = (first.mean - second.mean).cpu()
    a, b = first.covariance.cpu(), second.covariance.cpu()
    if not (a.isfinite().all() and b.isfinite().all()):
        return float("nan")
    # With a = r r^T, the eigenvalues of r^T b r are those of a b, but it is symmetric: they are
    # real whatever the rounding, and faster to find. None is negative but by rounding.
    eigenvalues, vectors = torch.linalg.eigh(a)
    root = vectors * eigenvalues.clamp(min=0).sqrt()
    trace_of_root = torch.linalg.eigvalsh(root.T @ b @ root).clamp(min=0).sqrt().sum()
    distance = difference.square().sum() + a.trace() + b.trace() - 2 * trace_of_root
    return max(0.0, distance.item())


@final
class FID:
    """Measures how far the reconstructions of all images are from these images, as a set.

    The originals of the first round are kept: later rounds must bring the same ones, and compute
    the features of the reconstructions alone, which is half of the work.

    Args:
        network: Turns pixels into a tuple of one tensor, features [b, 2048].

    References:
        Heusel et al. 2017, arXiv:1706.08500. Deviation: none from torch-fidelity 0.4, whose numbers
        are comparable with those of the original code.
    """

    def __init__(self, *, network: nn.Module) -> None:
        self.network, self.device = network, torch.device("cpu")
        self.known: Moments | None = None
        self.clear()

    def clear(self) -> None:
        """Begin a new round."""
        self.reconstructions = Moments(dim=FEATURES, device=self.device)
        self.originals = Moments(dim=FEATURES, device=self.device)

    def to(self, device: torch.device) -> "FID":
        """Move the network and the sums."""
        self.device = device
        self.network.to(device)
        for moments in (self.reconstructions, self.originals, self.known):
            if moments is not None:
                moments.to(device)
        return self

    def add(self, reconstruction: Pixels, original: Pixels, mask: Mask) -> None:
        """Add a batch.

        Args:
            reconstruction: Pixels as uint8; gray ones are repeated to three channels.
            original: Pixels as uint8.
            mask: False for images that only fill up the batch.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels.
            TypeError: If the pixels are not uint8.
        """
        self.reconstructions.add(self.features(reconstruction), mask)
        if self.known is None:
            self.originals.add(self.features(original), mask)

    @torch.no_grad()
    def features(self, pixels: Pixels) -> Float[Tensor, "b d"]:
        """Return the features of images.

        Raises:
            ConfigError: If images have neither 1 nor 3 channels.
            TypeError: If the pixels are not uint8.
        """
        if pixels.dtype != torch.uint8:
            raise TypeError(f"FID is defined on uint8 pixels, got {pixels.dtype}")
        color = in_color(pixels)
        with without_autocast(color):
            return self.network(color)[0]

    def compute(self) -> tuple[float, int]:
        """Return the distance, and the number of images over all ranks; every rank must call it.

        Raises:
            ValueError: If a later round has not as many images as the first.
        """
        reconstructions = self.reconstructions.reduced()
        if self.known is None:
            self.known = self.originals.reduced()
        if reconstructions.count != self.known.count:
            raise ValueError(
                "FID compares with the same originals in every round, "
                f"got {reconstructions.count} images after {self.known.count}"
            )
        return frechet_distance(reconstructions, self.known), reconstructions.count
