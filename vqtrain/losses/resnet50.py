"""The distance of images in the logits of a ResNet50."""

from typing import final

from vqtrain.losses.parts.logits import LogitsLoss


@final
class ResNet50Loss(LogitsLoss):
    """The mean squared error of the logits of torchvision's ResNet50, with its first weights.

    References:
        He et al. 2015, arXiv:1512.03385; as a loss by Weber et al. 2024, arXiv:2409.16211 (MaskBit,
        with weight 0.1).
    """

    classifier = "resnet50"
