"""A folder that transformers and diffusers load without vqtrain: weights, settings and code."""

import hashlib
from pathlib import Path

from safetensors.torch import save as to_safetensors
from torch import Tensor

from vqtrain.build import resolve
from vqtrain.errors import ConfigError
from vqtrain.formats.parts.preprocess import write_preprocess
from vqtrain.formats.parts.standalone.sources import Cut, flat
from vqtrain.formats.parts.writing import write_json
from vqtrain.tokenizer.model import Tokenizer
from vqtrain.tokenizer.parts import PARTS
from vqtrain.tokenizer.storage import CONFIG_FILE, WEIGHTS_FILE, kinds_in, stamped, write_whole

MODEL_TYPE = "vqtrain"
# What the model is made of, besides the kinds of its parts.
ENTRIES = {
    "vqtrain.tokenizer.model": "Tokenizer",
    "vqtrain.tokenizer.storage": "pixel_range",
    "vqtrain.formats.parts.standalone.kinds": "KINDS",
}
# What needs files or Pillow, and what transformers does in its own way.
FILES = ("config", "folded", "from_pretrained", "load_weights", "preprocess", "save_pretrained")
LEFT_OUT = {("vqtrain.tokenizer.model", "Tokenizer"): FILES}

CONFIGURATION = '''"""The configuration of a tokenizer that vqtrain trained, for the code @CODE@."""

from transformers import PretrainedConfig


class VQTrainConfig(PretrainedConfig):
    """Holds what the networks and the codebook are built from.

    Args:
        tokenizer: Encoder, codebook and decoder, each as ``{"kind": word, "arguments": {...}}``,
            the images that they take, and facts about ids and training.
    """

    model_type = "vqtrain"

    def __init__(self, tokenizer=None, **options):
        self.tokenizer = tokenizer or {}
        super().__init__(**options)
'''

MODELING = '''"""A tokenizer that vqtrain has trained, as a model of transformers."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_vqtrain import VQTrainConfig
@FILES@

# Kinds of parts are looked up here, and nowhere else.
KINDS.update(
    {
@KINDS@
    }
)


@dataclass
class VQTrainOutput(ModelOutput):
    """What a tokenizer makes of images.

    Attributes:
        loss: Of the codebook.
        reconstruction: About in [-1, 1], not clamped.
        token_ids: Of all codebooks, [b, k, ...].
        latents: Before the codebook.
    """

    loss: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None
    token_ids: torch.Tensor | None = None
    latents: torch.Tensor | None = None


class VQTrainModel(PreTrainedModel):
    """Turns images into grids of ids and back; ``tokenizer`` has all that it can do."""

    config_class = VQTrainConfig
    base_model_prefix = "tokenizer"
    main_input_name = "pixel_values"
    # Ids are compared in float32, also where the networks are in half precision.
    _keep_in_fp32_modules_strict = ["codebook"]

    def __init__(self, config):
        super().__init__(config)
        parts, image = config.tokenizer, config.tokenizer["image"]
        self.tokenizer = Tokenizer(
            encoder=parts["encoder"],
            codebook=parts["codebook"],
            decoder=parts["decoder"],
            channels=image["channels"],
            training=parts["training"],
            pixel_range=pixel_range(image),
        )
        # Buffers that are not in the file would come back uninitialized.
        for module in self.tokenizer.modules():
            module._non_persistent_buffers_set.clear()
        self.post_init()

    def _init_weights(self, module):
        """Leave weights as constructors make them and as files have them."""

    @property
    def vocab_size(self):
        """Number of ids of each codebook."""
        return self.tokenizer.vocab_size

    @property
    def downsampling(self):
        """Values of an image at each id, along each axis."""
        return self.tokenizer.downsampling

    @property
    def codebook_vectors(self):
        """The vectors of all ids, in their order."""
        return self.tokenizer.codebook_vectors

    def token_shape(self, *size):
        """Return the shape of the ids of one image, given its height and width."""
        return self.tokenizer.token_shape(*size)

    def encode(self, pixel_values, **options):
        """Turn images in [-1, 1] into ids: [b, h/f, w/f], or [b, k, h/f, w/f] of k codebooks."""
        return self.tokenizer.encode(pixel_values, **options)

    def decode(self, token_ids, **options):
        """Turn ids, in the shape that ``encode`` gives, into images in [-1, 1]."""
        return self.tokenizer.decode(token_ids, **options)

    def latents(self, pixel_values, **options):
        """Return continuous latents, before quantization."""
        return self.tokenizer.latents(pixel_values, **options)

    def quantize(self, latents):
        """Quantize latents: ``z_q``, ``token_ids`` and ``loss``."""
        return self.tokenizer.quantize(latents)

    def decode_latents(self, z_q, **options):
        """Decode quantized latents, with gradients, into images that may overshoot [-1, 1]."""
        return self.tokenizer.decode_latents(z_q, **options)

    def forward(self, pixel_values, return_dict=None):
        """Encode, quantize and decode images in [-1, 1], with gradients."""
        found = self.tokenizer(pixel_values)
        output = VQTrainOutput(
            loss=found.quantized.loss,
            reconstruction=found.samples,
            token_ids=found.quantized.token_ids,
            latents=found.latents,
        )
        return output.to_tuple() if return_dict is False else output
'''

IMAGE_PROCESSING = '''"""From pictures to what the model takes, and back."""

import numpy as np
import torch
from transformers.image_processing_base import BatchFeature, ImageProcessingMixin

from .preprocess import CHANNELS, RANGE, preprocess


class VQTrainImageProcessor(ImageProcessingMixin):
    """Crops pictures to whole tokens; nothing is resized."""

    model_input_names = ["pixel_values"]

    def __call__(self, images, **options):
        return self.preprocess(images, **options)

    def preprocess(self, images, return_tensors="pt"):
        """Turn pictures into ``pixel_values``, float32 [b, c, h, w] in [-1, 1].

        Args:
            images: A PIL image or an array [h, w, c], or a list of them of one size.
            return_tensors: "pt" or "np".
        """
        pictures = images if isinstance(images, (list, tuple)) else [images]
        found = [preprocess(picture) for picture in pictures]
        sizes = sorted({batch.shape[2:] for batch in found})
        if len(sizes) > 1:
            raise ValueError(f"images of a batch must have one size, got {sizes}: resize them")
        return BatchFeature({"pixel_values": np.concatenate(found)}, tensor_type=return_tensors)

    def post_process(self, images):
        """Turn images in [-1, 1] into arrays [h, w, c] of pixels, one for each."""
        black, white = RANGE or (0.0, 255.0)
        values = torch.as_tensor(images).detach().float().cpu().clamp(-1, 1)
        pixels = (values + 1) * ((white - black) / 2) + black
        pixels = pixels.permute(0, 2, 3, 1).numpy()
        return list(pixels if RANGE else np.round(pixels).astype(np.uint8))
'''


def write_model(tokenizer: Tokenizer, out: Path) -> None:
    """Write a tokenizer with all code that it needs, for ``AutoModel.from_pretrained``.

    Python with torch, numpy and transformers loads the folder. One of images has
    ``preprocess.py`` and an image processor as well.

    Args:
        tokenizer: In eval mode, on the CPU.
        out: A folder that exists.

    Raises:
        ConfigError: If a part of it is code of others, or needs more than torch.
    """
    for name, text in code_of(tokenizer).items():
        (out / f"{name}.py").write_text(text, encoding="utf-8")
    content = to_safetensors(all_tensors(tokenizer), {"format": "pt"})
    write_whole(out / WEIGHTS_FILE, lambda file: file.write(content))
    write_json(
        out / CONFIG_FILE,
        {
            "model_type": MODEL_TYPE,
            "architectures": ["VQTrainModel"],
            "auto_map": {
                "AutoConfig": "configuration_vqtrain.VQTrainConfig",
                "AutoModel": "modeling_vqtrain.VQTrainModel",
            },
            "dtype": str(tokenizer.dtype).removeprefix("torch."),
            "tokenizer": stamped(tokenizer.config),
        },
    )
    write_preprocess(tokenizer, out)
    if (out / "preprocess.py").is_file():
        (out / "image_processing_vqtrain.py").write_text(IMAGE_PROCESSING, encoding="utf-8")
        write_json(
            out / "preprocessor_config.json",
            {
                "image_processor_type": "VQTrainImageProcessor",
                "auto_map": {
                    "AutoImageProcessor": "image_processing_vqtrain.VQTrainImageProcessor"
                },
            },
        )


def all_tensors(tokenizer: Tokenizer) -> dict[str, Tensor]:
    """Return all parameters and buffers, also those that vqtrain does not save."""
    tensors = {**tokenizer.state_dict(), **dict(tokenizer.named_buffers())}
    return {f"tokenizer.{name}": tensor.detach().contiguous() for name, tensor in tensors.items()}


def code_of(tokenizer: Tokenizer) -> dict[str, str]:
    """Return the Python files, by their names without ``.py``."""
    classes = {}
    for part in PARTS:
        for kind in kinds_in(tokenizer.specification[part]):
            if ":" in kind:
                raise ConfigError(f"cannot export {part}={kind}: it is code outside vqtrain")
            classes[part, kind] = resolve(part, kind)
    names = {each.__module__: each.__name__ for each in classes.values()} | ENTRIES
    try:
        cut = Cut(names.items(), LEFT_OUT)
    except ConfigError as error:
        raise ConfigError(f"cannot export this tokenizer: {error}") from error
    # diffusers keeps the files of all local folders in one place, where equal names are one file.
    whole = "".join(cut.files("").values())
    suffix = f"_{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
    files = cut.files(suffix)
    imports = [
        f"from .{flat(name, suffix)} import {names.get(name, '__name__ as _')}" for name in files
    ]
    table = [
        f'        ("{part}", "{kind}"): {found.__name__},'
        for (part, kind), found in classes.items()
    ]
    modeling = MODELING.replace("@FILES@", "\n".join(imports))
    return {
        **{flat(name, suffix): text for name, text in files.items()},
        # transformers takes equal files in folders of one name for one class, with one model.
        "configuration_vqtrain": CONFIGURATION.replace("@CODE@", suffix.removeprefix("_")),
        "modeling_vqtrain": modeling.replace("@KINDS@", "\n".join(table)),
    }
