"""Contrastive alignment of images with their texts."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from vqtrain import distributed
from vqtrain.errors import DataError
from vqtrain.layers.pretrained_text import PretrainedText
from vqtrain.layers.text import TextTransformer
from vqtrain.losses.alignment.base import Embeddings, TextAlignment
from vqtrain.ops.precision import at_least_float32, without_autocast
from vqtrain.ranges import at_least

# Of the cosine similarities in the loss: at first, and at most.
FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0


@final
class Contrastive(TextAlignment):
    """CLIP's loss: of all texts of a batch an image is to find its own, and a text its image.

    An image is the mean of its quantized latents, normalized and projected; a text is read by a
    small transformer that is trained with the tokenizer, or by a frozen CLIP. The batch is that of
    all ranks; with accumulation it is one of the batches of a step.

    Args:
        dim: Channels of the space of both.
        text_model: Name of a CLIP of the Hugging Face hub; None for the small transformer.
        text_dim: Channels of the small transformer.
        text_depth: Its blocks.
        text_num_heads: Its attention heads.
        max_bytes: Bytes of a text that it reads, as UTF-8.
        aligned_channels: Of the latents.
        weights: Paths of pretrained weights by key; ``text`` is a folder with a copy of the CLIP.

    Raises:
        ConfigError: If the heads do not divide ``text_dim``, or transformers is not installed.
        WeightsError: If the CLIP is missing, damaged or another model.

    References:
        Radford et al. 2021, arXiv:2103.00020, figure 3 and section 2.5; for quantized latents Ma et
        al. 2025, arXiv:2502.20321 (UniTok). Deviation: the text transformer reads bytes, and each
        of them sees all others.
    """

    def __init__(
        self,
        *,
        dim: Annotated[int, at_least(1)],
        text_model: str | None,
        text_dim: Annotated[int, at_least(1)],
        text_depth: Annotated[int, at_least(1)],
        text_num_heads: Annotated[int, at_least(1)],
        max_bytes: Annotated[int, at_least(1)],
        aligned_channels: int,
        weights: Mapping[str, str | None],
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(aligned_channels)
        self.image_projection = nn.Linear(aligned_channels, dim, bias=False)
        self.text: TextTransformer | PretrainedText
        if text_model is not None:
            self.text = PretrainedText(model=text_model, given=weights.get("text"))
        else:
            self.text = TextTransformer(
                dim=text_dim, depth=text_depth, num_heads=text_num_heads, max_bytes=max_bytes
            )
        self.text_projection = nn.Linear(self.text.dim, dim, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def embed(self, latents: Float[Tensor, "b d *grid"], texts: Sequence[str]) -> Embeddings:
        """Map the quantized latents of samples, and texts, to unit vectors.

        Raises:
            DataError: If the samples have no texts.
        """
        if len(texts) != len(latents):
            raise DataError(
                "loss/alignment=contrastive needs a text for each sample: a data module of your "
                f"own gives them as Batch.texts, got {len(texts)} for {len(latents)} samples"
            )
        with without_autocast(latents):
            means = at_least_float32(latents).flatten(2).mean(2)
            images = self.image_projection(self.norm(means))
            return Embeddings(
                images=normalize(images, dim=1),
                texts=normalize(self.text_projection(self.text(texts)), dim=1),
            )

    def forward(
        self,
        latents: Float[Tensor, "b d *grid"],
        samples: Float[Tensor, "b c *size"],
        texts: Sequence[str],
    ) -> Float[Tensor, ""]:
        """Return the mean cross entropy, in nats, of the choices of all images and texts."""
        del samples
        with torch.no_grad():
            self.log_scale.clamp_(0, math.log(LARGEST_SCALE))
        embeddings = self.embed(latents, texts)
        with without_autocast(latents):
            images = distributed.all_gather_with_gradient(embeddings.images)
            others = distributed.all_gather_with_gradient(embeddings.texts)
            logits = self.log_scale.exp() * images @ others.T
            own = torch.arange(len(logits), device=logits.device)
            return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
