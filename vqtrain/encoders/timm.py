"""A vision transformer of the package timm, with its published weights or without."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from vqtrain.encoders.base import Encoder
from vqtrain.errors import ConfigError, WeightsError, require
from vqtrain.ranges import nearest
from vqtrain.weights import find_on_hub, one_line


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
        repository = self.model.pretrained_cfg.get("hf_hub_id")
        if given is None and repository is None:
            raise WeightsError(
                f"timm knows no file for encoder.model={self.name}: set weights.encoder=PATH, or "
                "encoder.pretrained=false for random weights"
            )
        file = find_on_hub("encoder", repository, given)
        try:
            with torch.random.fork_rng(devices=[]):
                loaded = create(self.name, self.sample_size, file)
        except Exception as error:  # arbitrary bytes can raise any error in the unpickler
            raise WeightsError(
                f"cannot load {file} into encoder.model={self.name}: {one_line(error)}"
            ) from error
        self.model.load_state_dict(loaded.state_dict())
        return f"encoder: {self.name}, weights from {file}"


def create(name: str, size: tuple[int, ...], file: Path | None = None) -> Any:  # noqa: ANN401 - timm's models declare no attributes
    """Build a model of timm without its head.

    Args:
        name: Of the model.
        size: Height and width of the images that its positions are of.
        file: Weights, with those of its head; None for random ones.

    Raises:
        ConfigError: If timm is not installed, or there is no such model or no such transformer.
    """
    if find_spec("timm") is None:
        raise ConfigError('model needs timm: pip install "vqtrain[timm]"')
    timm = import_module("timm")  # it takes two seconds
    try:
        is_known = ":" not in name and timm.get_pretrained_cfg(name) is not None
    except RuntimeError:  # an unknown tag
        is_known = False
    if not is_known:
        near = nearest(name, {*timm.list_models(), *timm.list_models(pretrained=True)})
        hint = f"did you mean {near!r}?" if near else 'timm.list_models("vit*") lists some'
        raise ConfigError(f"model must be the name of a model of timm, got {name!r}; {hint}")
    try:
        model = timm.create_model(
            name,
            pretrained=file is not None,
            pretrained_cfg_overlay={"file": str(file)},
            img_size=size,
            dynamic_img_size=True,
        )
    except TypeError:  # it takes no such size
        model = None
    is_plain = isinstance(model, (timm.models.VisionTransformer, timm.models.Eva))
    require(
        is_plain and type(model.patch_embed) is timm.layers.PatchEmbed,
        f"model must be a vision transformer over patches, got {name!r}",
    )
    model.prune_intermediate_layers(1)  # no pooling and no head; all blocks are kept
    return model
