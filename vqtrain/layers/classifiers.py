"""Classifiers of ImageNet, with the weights that torchvision publishes."""

from collections.abc import Callable

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

from vqtrain import weights
from vqtrain.errors import WeightsError
from vqtrain.layers.frozen import Frozen
from vqtrain.layers.vision import resized
from vqtrain.shapes import Images

BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "resnet50": torchvision.models.resnet50,
    "convnext": torchvision.models.convnext_small,
}
# What they were trained on: the size in px, and the channels of images in [0, 1].
SIZE = (224, 224)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class Classifier(nn.Module):
    """A frozen classifier of ImageNet, in eval mode always; see ``Frozen``.

    Args:
        name: ``resnet50`` or ``convnext`` (its size S).
        given: Path of torchvision's file; None to look in torch's cache.

    Raises:
        WeightsError: If the weights are missing, damaged or those of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, name: str, given: str | None) -> None:
        super().__init__()
        self.network = Frozen(_load(name, given))
        for key, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(key, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Images) -> Float[Tensor, "b classes"]:
        """Return the logits of images in [-1, 1], of 1 or 3 channels.

        They are resized to 224 x 224 px, bilinear with antialias; nothing is cropped.
        """
        pixels = (resized(images, SIZE) + 1) / 2
        return self.network((pixels - self.mean) / self.std)


def _load(name: str, given: str | None) -> nn.Module:
    """Build a classifier with its weights."""
    try:
        file = weights.find(name, given)
    except weights.NotHereError:
        return BUILDERS[name](weights=None)
    with torch.device("meta"):  # without memory for weights that are about to be loaded
        network = BUILDERS[name](weights=None)
    network.to_empty(device="cpu")
    try:
        network.load_state_dict(weights.read(file))
    except RuntimeError as error:
        raise WeightsError(
            f"cannot use {file}: it does not hold the weights of {name}, as torchvision's "
            f"{weights.KNOWN[name].name} does"
        ) from error
    return network
