"""diffusers' ``AutoencoderDC``: the deep compression autoencoders of SANA and others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from jaxtyping import Shaped
from torch import Tensor

from vqtrain.errors import require
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.diffusers import Scale, Settings, load, rescale
from vqtrain.tokenizer.model import Tokenizer

CLASS = "AutoencoderDC"
ATTENTION, RESIDUAL = "EfficientViTBlock", "ResBlock"
NORMS = {"rms_norm": "rms", "batch_norm": "none"}
ACTIVATIONS = {"silu": "silu", "swish": "silu", "relu": "relu"}
LEVELS = (128, 256, 512, 512, 1024, 1024)
KERNELS = ((), (), (), (5,), (5,), (5,))
# What batch normalization has, in the place of the bias of the convolution before it.
BIAS = ".conv2.bias"
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
BATCH_NORM_EPS = 1e-5


@dataclass(frozen=True, kw_only=True)
class DCSettings(Settings):
    """What an ``AutoencoderDC`` says, with the defaults of that class.

    Raises:
        ConfigError: If ``dcae`` networks cannot be that.
    """

    in_channels: int = 3
    latent_channels: int = 32
    attention_head_dim: int = 32
    encoder_block_types: str | Sequence[str] = RESIDUAL
    decoder_block_types: str | Sequence[str] = RESIDUAL
    encoder_block_out_channels: Sequence[int] = LEVELS
    decoder_block_out_channels: Sequence[int] = LEVELS
    encoder_layers_per_block: Sequence[int] = (2, 2, 2, 3, 3, 3)
    decoder_layers_per_block: Sequence[int] = (3, 3, 3, 3, 3, 3)
    encoder_qkv_multiscales: Sequence[Sequence[int]] = KERNELS
    decoder_qkv_multiscales: Sequence[Sequence[int]] = KERNELS
    upsample_block_type: str = "pixel_shuffle"
    downsample_block_type: str = "pixel_unshuffle"
    decoder_norm_types: str | Sequence[str] = "rms_norm"
    decoder_act_fns: str | Sequence[str] = "silu"
    encoder_out_shortcut: bool = True
    decoder_in_shortcut: bool = True
    decoder_conv_act_fn: str = "relu"
    scaling_factor: Scale = 1.0

    @property
    def num_blocks(self) -> int:
        """Blocks of the larger network."""
        return max(sum(self.encoder_layers_per_block), sum(self.decoder_layers_per_block))

    def build(self) -> Tokenizer:
        """Build a tokenizer, with weights that are still to be loaded."""
        norm = self._shared("decoder_norm_types", RESIDUAL, NORMS)
        activation = self._shared("decoder_act_fns", RESIDUAL, ACTIVATIONS)
        self._shared("decoder_norm_types", ATTENTION, {"rms_norm": "rms"})
        last = self.decoder_conv_act_fn
        require(last in ACTIVATIONS, f"decoder_conv_act_fn must be silu or relu, got {last!r}")
        folds = self.downsample_block_type == "pixel_unshuffle"
        unfolds = self.upsample_block_type != "interpolate"  # in diffusers, any other word
        encoder = {
            "in_channels": self.in_channels,
            "downsample": "pixel_unshuffle" if folds else "conv",
            "latent_shortcut": self.encoder_out_shortcut,
            **self._stages("encoder"),
        }
        decoder = {
            "out_channels": self.in_channels,
            "upsample": "pixel_shuffle" if unfolds else "interpolate",
            "latent_shortcut": self.decoder_in_shortcut,
            "norm": norm or "rms",
            "activation": activation or "silu",
            "output_activation": ACTIVATIONS[last],
            **self._stages("decoder"),
        }
        return Tokenizer(
            encoder={"kind": "dcae", "arguments": encoder},
            codebook={
                "kind": "continuous",
                "arguments": {"size": None, "dim": self.latent_channels},
            },
            decoder={"kind": "dcae", "arguments": decoder},
            channels=self.in_channels,
        )

    def their_name(self, name: str) -> str | None:
        """Return the name itself; they have no projections."""
        return None if name.startswith("project_") else name

    def theirs(self, own: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, Shaped[Tensor, "..."]]:
        """Name batch normalization in the place of the biases that it becomes."""
        found = super().theirs(own)
        for name in [name for name in found if name.endswith(BIAS)]:
            bias, block = found.pop(name), name.removesuffix(BIAS)
            found |= {f"{block}.norm.{part}": bias for part in BATCH_NORM}
        return found

    def ours(
        self, weights: Mapping[str, Shaped[Tensor, "..."]]
    ) -> Mapping[str, Shaped[Tensor, "..."]]:
        """Make batch normalization a part of the convolution before it."""
        found = dict(weights)
        for name in weights:
            block, _, rest = name.partition(".norm.running_mean")
            if block != name and not rest:
                gain, bias, mean, variance = (
                    found.pop(f"{block}.norm.{part}").double() for part in BATCH_NORM
                )
                factor = gain * (variance + BATCH_NORM_EPS).rsqrt()
                kernel = found[f"{block}.conv2.weight"].double() * factor[:, None, None, None]
                found[f"{block}.conv2.weight"] = kernel
                found[block + BIAS] = bias - mean * factor
        return found

    def _stages(self, part: str) -> dict[str, object]:
        """Return what both networks say, in our words."""
        widths = getattr(self, f"{part}_block_out_channels")
        counts = getattr(self, f"{part}_layers_per_block")
        kernels = getattr(self, f"{part}_qkv_multiscales")
        types = self._each(f"{part}_block_types")
        self._check(
            f"{part}_layers_per_block", len(counts) == len(widths), f"{len(widths)} numbers"
        )
        self._check(f"{part}_qkv_multiscales", len(kernels) == len(widths), f"{len(widths)} lists")
        self._check(
            f"{part}_block_types",
            set(types) <= {ATTENTION, RESIDUAL},
            f"{RESIDUAL} or {ATTENTION}, one for each of {len(widths)} stages",
        )
        is_multiple = bool(widths) and all(w > 0 and w % max(1, widths[0]) == 0 for w in widths)
        self._check(f"{part}_block_out_channels", is_multiple, "multiples of the first of them")
        levels = [i for i, word in enumerate(types) if word == ATTENTION and counts[i]]
        sizes = [list(kernels[i]) for i in levels] or [[]]
        self._check(
            f"{part}_qkv_multiscales",
            all(each == sizes[0] for each in sizes),
            "the same for all stages with attention",
        )
        return {
            "channels": widths[0],
            "multipliers": [width // widths[0] for width in widths],
            "num_blocks": list(counts),
            "attention_factors": [2**i for i in levels],
            "head_dim": self.attention_head_dim,
            "kernel_sizes": sizes[0],
            "latent_channels": self.latent_channels,
        }

    def _each(self, name: str) -> list[str]:
        """Return a word for each stage."""
        given, stages = getattr(self, name), len(getattr(self, f"{name[:7]}_block_out_channels"))
        words = [given] * stages if isinstance(given, str) else list(given)
        self._check(name, len(words) == stages, f"a word, or {stages} of them")
        return words

    def _shared(self, name: str, kind: str, words: Mapping[str, str]) -> str | None:
        """Return our word for what all blocks of a kind in the decoder have; None without them."""
        each, types = self._each(name), self._each("decoder_block_types")
        used = [
            word
            for word, type_, count in zip(each, types, self.decoder_layers_per_block, strict=False)
            if type_ == kind and count
        ]
        fits = len(set(used)) <= 1 and set(used) <= set(words)
        self._check(name, fits, f"{' or '.join(words)} for all stages of {kind}")
        return words[used[0]] if used else None

    def _check(self, name: str, holds: bool, right: str) -> None:
        got: Any = getattr(self, name)
        require(
            holds, f"{name} is {got!r}, but in encoder=dcae decoder=dcae it can only be {right}"
        )


@final
class AutoencoderDC(Converter):
    """A directory of diffusers' ``AutoencoderDC``: ``dcae`` networks around continuous latents.

    Latents are scaled as diffusion models take them.
    """

    def convert(self, path: Path) -> Tokenizer:
        """Read an ``AutoencoderDC``."""
        settings, tokenizer = load(path, CLASS, DCSettings)
        z = settings.latent_channels
        rescale(tokenizer, [0.0] * z, [settings.scaling_factor] * z)
        return tokenizer
