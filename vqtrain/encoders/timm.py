"""A vision transformer of the package timm, with its published weights or without."""

from collections.abc import Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.errors import require
from vqtrain.layers.vision import create, load


@final
class TimmEncoder(Encoder):
    """The tokens of the patches, as ``forward_features`` of timm gives them, without other tokens.

    Images are normalized as those that the model was trained on. The constructor makes random
    weights and reads no file: a new run then calls ``load_pretrained``, and a saved tokenizer holds
    all weights.

    Args:
        in_channels: Channels of the images, 1 or 3; a gray image is one of three equal channels.
        sample_size: Height and width in training; positions are interpolated to others.
        model: The name of a model of timm, whose class is ``VisionTransformer`` or ``Eva``.
        pretrained: Whether a new run starts from the published weights.
        frozen: Whether the model stays as it is: its parameters take no gradient, and it is in eval
            mode in training, too.

    Raises:
        ConfigError: If timm is not installed, or there is no such model or no such transformer.

    References:
        Dosovitskiy et al. 2020, arXiv:2010.11929; Oquab et al. 2023, arXiv:2304.07193 (DINOv2).
    """

    sample_size: tuple[int, ...]
    model: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        sample_size: Sequence[int],
        model: str,
        pretrained: bool,
        frozen: bool,
    ) -> None:
        super().__init__()
        require(
            in_channels in (1, 3),
            f"data.channels must be 1 or 3 for this encoder, got {in_channels}",
        )
        self.name, self.pretrained, self.frozen = model, pretrained, frozen
        self.sample_size = tuple(sample_size)
        self.model = create(model, self.sample_size)
        self.out_channels = self.model.embed_dim
        self.downsampling = tuple(self.model.patch_embed.patch_size)
        for name in ("mean", "std"):
            values = torch.tensor(self.model.pretrained_cfg[name])
            self.register_buffer(name, values[:, None, None])
        if frozen:
            self.model.requires_grad_(False)

    def train(self, mode: bool = True) -> "TimmEncoder":
        """Set the mode; a frozen model stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def forward(self, samples: Float[Tensor, "b c h w"]) -> Float[Tensor, "b z h_z w_z"]:
        """Encode images in [-1, 1]."""
        images = (samples.expand(-1, len(self.mean), -1, -1) + 1) / 2
        tokens = self.model.forward_features((images - self.mean) / self.std)
        patches = tokens[:, self.model.num_prefix_tokens :].transpose(1, 2)
        (height, width), (rows, columns) = samples.shape[2:], self.downsampling
        return patches.unflatten(2, (height // rows, width // columns))

    def load_pretrained(self, given: str | None) -> str | None:
        """Load the published weights by timm's own rules, with positions for our grid.

        Raises:
            WeightsError: If there are none, they cannot be had, or the file does not fit.
        """
        if not self.pretrained:
            return None
        loaded, file = load(self.name, self.sample_size, "encoder", given)
        self.model.load_state_dict(loaded.state_dict())
        return f"encoder: {self.name}, weights from {file}"
