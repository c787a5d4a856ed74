"""The distance of images in the logits of a ConvNeXt-S."""

from typing import final

from vqtrain.losses.parts.logits import LogitsLoss


@final
class ConvNeXtLoss(LogitsLoss):
    """The mean squared error of the logits of torchvision's ConvNeXt-S, with its first weights.

    References:
        Liu et al. 2022, arXiv:2201.03545; as a loss in the code of Yu et al. 2024, arXiv:2406.07550
        (TiTok, with weight 0.1).
    """

    classifier = "convnext"
