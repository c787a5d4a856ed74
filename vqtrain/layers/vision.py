"""Vision models of the package timm: how they are built and loaded, and one that stays frozen."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vqtrain.errors import ConfigError, WeightsError, require
from vqtrain.layers.block import Block
from vqtrain.layers.frozen import Frozen
from vqtrain.ops.precision import at_least_float32, without_autocast
from vqtrain.ranges import nearest
from vqtrain.shapes import Images, by
from vqtrain.weights import NotHereError, find_on_hub, one_line


@final
class VisionModel(nn.Module):
    """A frozen vision transformer with its published weights, which gives its patch tokens.

    It is in eval mode always, and in no state dict and no ``parameters()`` of what uses it (see
    ``Frozen``). Gradients pass through it to the images. Second derivatives need torch's own
    attention: ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.

    Args:
        model: The name of a model of timm, whose class is ``VisionTransformer`` or ``Eva``.
        size: Height and width at which it sees images, in px; others are resized.
        blocks: Numbers of the blocks whose outputs are taken, from 0 and ascending; None for the
            last one alone.
        norm: Whether the final normalization of the model is applied to them.
        class_token: Whether the class token of the same block is added to each patch token.
        key: The key of the group ``weights`` that can name a file.
        given: Path of the file; None to look in the cache of the Hugging Face hub.

    Attributes:
        channels: Of the maps.
        grid: Rows and columns of the maps.

    Raises:
        ConfigError: If timm is not installed, there is no such model or no such transformer, it has
            no such block or no class token, or the size is no multiple of its patches.
        WeightsError: If its weights are missing, damaged or those of another model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        model: str,
        size: tuple[int, int],
        blocks: Sequence[int] | None,
        norm: bool,
        class_token: bool,
        key: str,
        given: str | None,
    ) -> None:
        super().__init__()
        with torch.device("meta"):  # what cannot be is refused before a download
            network = create(model, size)
        depth = len(network.blocks)
        blocks = [depth - 1] if blocks is None else blocks
        require(
            len(blocks) > 0
            and list(blocks) == sorted(set(blocks))
            and blocks[0] >= 0
            and blocks[-1] < depth,
            f"blocks must be ascending numbers of 0 to {depth - 1} for {model}, got {list(blocks)}",
        )
        require(
            network.cls_token is not None or not class_token,
            f"model must have a class token, and {model} has none",
        )
        self.channels: int = network.embed_dim
        patch: tuple[int, int] = network.patch_embed.patch_size
        require(
            not (size[0] % patch[0] or size[1] % patch[1]),
            f"size must be a multiple of the patches of {model}, {by(patch)} px, got {by(size)}",
        )
        self.grid = (size[0] // patch[0], size[1] // patch[1])
        self.size, self.blocks = size, list(blocks)
        self.norm, self.class_token = norm, class_token
        network, _ = load(model, size, key, given)
        self.trunk = Frozen(network)
        for name in ("mean", "std"):
            values = torch.tensor(network.pretrained_cfg[name])
            self.register_buffer(name, values[:, None, None], persistent=False)

    def forward(self, images: Images) -> list[Float[Tensor, "b z rows columns"]]:
        """Return the patch tokens of images in [-1, 1] as one map for each of the blocks.

        A gray image is one of three equal channels. The images are normalized as those that the
        model was trained on.
        """
        pixels = (resized(images, self.size).expand(-1, 3, -1, -1) + 1) / 2
        found = self.trunk.network.forward_intermediates(
            (pixels - self.mean) / self.std,
            indices=self.blocks,
            return_prefix_tokens=self.class_token,
            norm=self.norm,
            stop_early=True,
            intermediates_only=True,
        )
        if not self.class_token:
            return list(found)
        return [patches + prefix[:, 0, :, None, None] for patches, prefix in found]


def resized(images: Images, size: tuple[int, int]) -> Float[Tensor, "b c _ _"]:
    """Resize images to a height and width, bilinear with antialias, unless they have it.

    By products with matrices: on CUDA the gradient of ``interpolate`` is not deterministic.
    """
    if tuple(images.shape[2:]) == size:
        return images
    wide = at_least_float32(images)
    (rows, columns), (height, width) = size, images.shape[2:]
    with without_autocast(wide):
        return _resizing(wide, rows, height) @ wide @ _resizing(wide, columns, width).T


def _resizing(like: Tensor, side: int, old: int) -> Float[Tensor, "side old"]:
    """Return the matrix that resizes a column of pixels."""
    unit = torch.eye(old, dtype=like.dtype, device=like.device)[None, None]
    return interpolate(unit, (side, old), mode="bilinear", antialias=True)[0, 0]


def require_images(what: str, channels: int, size: Sequence[int]) -> None:
    """Refuse samples that are not images of 1 or 3 channels.

    Args:
        what: The part that needs images, for the message.
        channels: Of a sample.
        size: Of its axes.

    Raises:
        ConfigError: If they are not.
    """
    if len(size) != 2 or channels not in (1, 3):
        raise ConfigError(
            f"{what} needs images of 1 or 3 channels, got {channels} channels of size {by(size)}"
        )


def load(name: str, size: tuple[int, ...], key: str, given: str | None) -> tuple[Any, Path | None]:
    """Build a model of timm with weights, by timm's own rules, with positions for another size.

    Args:
        name: As of ``create``, which has built it before.
        size: As of ``create``.
        key: The key of the group ``weights`` that can name a file.
        given: Path of the file; None to look in the cache of the Hugging Face hub.

    Returns:
        The model, and the file that its weights are from; None and random weights if there is none
        ``without_downloads``.

    Raises:
        WeightsError: If the weights are missing, damaged or those of another model.
    """
    repository = published(name)
    if given is None and repository is None:
        raise WeightsError(
            f"timm knows no weights of {name}: choose another model, or set weights.{key}=PATH"
        )
    try:
        file = find_on_hub(key, repository or "", given)
    except NotHereError:
        return create(name, size), None
    try:
        with torch.random.fork_rng(devices=[]):
            return create(name, size, file), file
    except Exception as error:  # arbitrary bytes can raise any error in the unpickler
        is_other = "state_dict" in str(error)  # and torch says what differs
        reason = one_line(error) if is_other else "it is damaged or holds no weights"
        raise WeightsError(
            f"cannot load {file} into {name} of timm: {reason}; to use another copy, set "
            f"weights.{key}=PATH"
        ) from error


def published(name: str) -> str | None:
    """Return the repository of the Hugging Face hub that holds the weights of a model of timm.

    Raises:
        ConfigError: If timm is not installed, or there is no such model.
    """
    if find_spec("timm") is None:
        raise ConfigError('model needs timm: pip install "vqtrain[timm]"')
    timm = import_module("timm")  # it takes two seconds
    try:
        config = None if ":" in name else timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        config = None
    if config is None:
        near = nearest(name, {*timm.list_models(), *timm.list_models(pretrained=True)})
        hint = f"did you mean {near!r}?" if near else 'timm.list_models("vit*") lists some'
        raise ConfigError(f"model must be the name of a model of timm, got {name!r}; {hint}")
    repository: str | None = config.hf_hub_id
    return repository


def create(name: str, size: tuple[int, ...], file: Path | None = None) -> Any:  # noqa: ANN401 - timm's models declare no attributes
    """Build a model of timm without its head.

    Args:
        name: Of the model.
        size: Height and width of the images that its positions are of.
        file: Weights, with those of its head; None for random ones.

    Raises:
        ConfigError: If timm is not installed, or there is no such model or no such transformer.
    """
    published(name)
    timm = import_module("timm")
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
    for block in model.blocks:
        Block.register(type(block))
    model.prune_intermediate_layers(1)  # no pooling and no head; all blocks are kept
    return model
