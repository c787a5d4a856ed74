"""Recall: whether an image finds its text among those of all others, and a text its image."""

import math
from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.metrics.base import TextMetric

# Most values of a comparison of all images with all texts that are held at once.
CHUNK = 2**24


@final
class Retrieval(TextMetric):
    """Recall at 1 and at 5 of images and texts that no training step has seen, in percent.

    Images with equal texts are correct for each other's text, and a text counts once however many
    images have it. So of d different texts, chance finds that of an image at 1 with 1 / d.

    - ``image_to_text@k``: images for which fewer than k texts are nearer than their own.
    - ``text_to_image@k``: texts for which fewer than k images of other texts are nearer than the
      nearest of their own.

    References:
        Karpathy and Fei-Fei 2015, arXiv:1412.2306, for the measure; Radford et al. 2021,
        arXiv:2103.00020, for zero-shot retrieval. Deviation: equal texts are one.
    """

    name, title, unit = "retrieval", "Recall", "%"
    higher_is_better = True
    definition = "mean of the recalls at 1 and 5, of texts by images and of images by texts"

    def values(
        self, images: Float[Tensor, "n dim"], texts: Float[Tensor, "n dim"], words: Sequence[str]
    ) -> dict[str, float]:
        """Return the four recalls, and their mean under ``retrieval``, NaN without images."""
        if not words:
            return {self.name: math.nan}
        firsts = {word: number for number, word in reversed(list(enumerate(words)))}
        numbers = {word: number for number, word in enumerate(firsts)}
        own = torch.tensor([numbers[word] for word in words], device=images.device)
        distinct = texts[list(firsts.values())].double()
        images = images.double()
        ranks = {
            "image_to_text": _ranks_of_texts(images, distinct, own),
            "text_to_image": _ranks_of_images(images, distinct, own),
        }
        recalls = {
            f"{self.name}_{way}@{k}": 100 * int((nearer < k).sum()) / len(nearer)
            for way, nearer in ranks.items()
            for k in (1, 5)
        }
        return {self.name: math.fsum(recalls.values()) / len(recalls), **recalls}


def _ranks_of_texts(images: Tensor, distinct: Tensor, own: Tensor) -> Tensor:
    """Count for each image the texts that are nearer than its own."""
    ranks = []
    rows = max(1, CHUNK // max(1, len(distinct)))
    for part, number in zip(torch.split(images, rows), torch.split(own, rows), strict=True):
        similarity = part @ distinct.T
        ranks.append((similarity > similarity.gather(1, number[:, None])).sum(1))
    return torch.cat(ranks)


def _ranks_of_images(images: Tensor, distinct: Tensor, own: Tensor) -> Tensor:
    """Count for each text the images of others that are nearer than the nearest of its own."""
    ranks = []
    rows = max(1, CHUNK // max(1, len(images)))
    numbers = torch.arange(len(distinct), device=own.device)
    for part, number in zip(torch.split(distinct, rows), torch.split(numbers, rows), strict=True):
        similarity = part @ images.T
        nearest = similarity.where(own == number[:, None], -math.inf).amax(1, keepdim=True)
        ranks.append((similarity > nearest).sum(1))
    return torch.cat(ranks)
