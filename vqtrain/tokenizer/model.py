"""The tokenizer: an encoder, a codebook and a decoder as one plain module."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from vqtrain.build import build_part
from vqtrain.codebooks.base import Codebook, Quantized
from vqtrain.decoders.base import Decoder
from vqtrain.encoders.base import Encoder
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.ops.pixels import ValueRange, to_images, to_pixels
from vqtrain.ops.precision import at_least_float32, without_autocast
from vqtrain.ops.tiles import in_tiles
from vqtrain.tokenizer import storage
from vqtrain.tokenizer.checks import (
    check_batch_size,
    check_finite,
    check_range,
    check_tile,
    differences,
)

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

MAX_LISTED = 2**22  # vectors of a codebook at once


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What a tokenizer makes of images.

    Attributes:
        images: Reconstructions, in [-1, 1] but for what the decoder overshoots.
        quantized: What the codebook gave back on the way.
        latents: What the codebook was given.
    """

    images: Float[Tensor, "b c h w"]
    quantized: Quantized
    latents: Float[Tensor, "b d *grid"]


class Tokenizer(nn.Module):
    """Turns images into grids of integers from a learned vocabulary, and back.

    Args:
        encoder: ``{"kind": word, "arguments": {...}}``, as in ``config.json``.
        codebook: Likewise.
        decoder: Likewise.
        channels: Channels of an image.
        training: What is known about the training, as plain data; kept in ``config.json``.
        pixel_range: Values of black and white of its pixels, which are then float32; None for
            uint8 pixels of 0..255.

    Raises:
        ConfigError: If a module cannot be built, if the modules do not fit each other, or if the
            range is none.

    Example:
        >>> network = dict(channels=8, block_channels=4, num_blocks=1)
        >>> tokenizer = Tokenizer(
        ...     encoder={"kind": "vqvae",
        ...              "arguments": dict(in_channels=3, num_downsamplings=2, **network)},
        ...     codebook={"kind": "fsq", "arguments": dict(size=16, levels=None, eps=1e-3)},
        ...     decoder={"kind": "vqvae",
        ...              "arguments": dict(out_channels=3, num_upsamplings=2, **network)},
        ...     channels=3)
        >>> token_ids = tokenizer.encode(torch.zeros(2, 3, 32, 64))
        >>> token_ids.shape, tokenizer.decode(token_ids).shape
        (torch.Size([2, 8, 16]), torch.Size([2, 3, 32, 64]))
    """

    def __init__(
        self,
        *,
        encoder: Mapping[str, object],
        codebook: Mapping[str, object],
        decoder: Mapping[str, object],
        channels: int,
        training: Mapping[str, object] | None = None,
        pixel_range: ValueRange | None = None,
    ) -> None:
        super().__init__()
        if pixel_range is not None and not -math.inf < pixel_range[0] < pixel_range[1] < math.inf:
            raise ConfigError(
                f"a range of pixels is two numbers, black and white, got {list(pixel_range)}"
            )
        self.pixel_range = pixel_range
        self.specification = {"encoder": encoder, "codebook": codebook, "decoder": decoder}
        self.channels = channels
        self.training_summary = dict(training or {})
        self.encoder = cast(Encoder, build_part("encoder", encoder))
        self.codebook = cast(Codebook, build_part("codebook", codebook))
        self.decoder = cast(Decoder, build_part("decoder", decoder))
        if self.encoder.downsampling != self.decoder.upsampling:
            raise ConfigError(
                f"the encoder divides the image size by {self.encoder.downsampling}, but the "
                f"decoder multiplies it by {self.decoder.upsampling}: make them equal"
            )
        # Always present, so that no module knows its neighbor and foreign weights have a place.
        self.project_in = nn.Conv2d(
            self.encoder.out_channels, self.codebook.moments * self.codebook.dim, 1
        )
        self.project_out = nn.Conv2d(self.codebook.dim, self.decoder.in_channels, 1)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, allow: Sequence[str] = ()) -> "Tokenizer":
        """Load a tokenizer, in eval mode, on the CPU.

        Args:
            path: A tokenizer directory, a run directory, a checkpoint file, or ``hf://org/name``.
            allow: Packages outside vqtrain whose classes the tokenizer may name.

        Raises:
            CheckpointError: If there is no such tokenizer, or if it cannot be read.
        """
        config, weights = storage.read(str(path), allow=allow)
        try:
            tokenizer = cls(
                encoder=config["encoder"],
                codebook=config["codebook"],
                decoder=config["decoder"],
                channels=config["image"]["channels"],
                training=config["training"],
                pixel_range=storage.pixel_range(config["image"]),
            )
            tokenizer.load_weights(weights)
        except ConfigError as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        return tokenizer.eval()

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a directory.

        Raises:
            CheckpointError: If they cannot be written; what was there before stays whole.
        """
        storage.write(Path(path), self.config, self.state_dict())

    def folded(self) -> "Tokenizer":
        """Return this tokenizer for use alone: tables that are computed at each call become plain.

        Ids and images stay the same, bit for bit; ``simvq`` becomes ``vq``.
        """
        codebook = self.codebook.folded(self.specification["codebook"])
        tokenizer = Tokenizer(
            encoder=self.specification["encoder"],
            codebook=codebook.specification,
            decoder=self.specification["decoder"],
            channels=self.channels,
            training=self.training_summary,
            pixel_range=self.pixel_range,
        ).to(self.project_in.weight)
        own = {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("codebook.")
        }
        folded = {f"codebook.{name}": tensor for name, tensor in codebook.weights.items()}
        tokenizer.load_weights({**own, **folded})
        return tokenizer.eval()

    @property
    def config(self) -> dict[str, object]:
        """What ``config.json`` says of this tokenizer, as plain data."""
        return {
            **self.specification,
            "image": storage.image_config(self.channels, self.pixel_range),
            "downsampling": self.downsampling,
            "token_ids": {
                "vocab_size": self.vocab_size,
                "num_codebooks": self.codebook.num_codebooks,
                "grids": [list(grid) for grid in self.codebook.token_grids],
                "id_order": self.codebook.id_order,
                "selection_rule": self.codebook.selection_rule,
            },
            "training": self.training_summary,
        }

    @property
    def vocab_size(self) -> int:
        """Number of ids of each codebook."""
        return self.codebook.size

    @property
    def downsampling(self) -> int:
        """Image pixels per grid position, along each side."""
        return self.encoder.downsampling

    @property
    def codebook_vectors(self) -> Float[Tensor, "*k size dim"]:
        """The vector of every id, in the order of the ids; [k, size, dim] of several codebooks.

        Raises:
            ConfigError: If there are no ids, or too many to list.
        """
        self.check_ids()
        if self.vocab_size > MAX_LISTED:
            raise ConfigError(
                f"{self.vocab_size} vectors are too many to list, at most {MAX_LISTED} are: use "
                "decode"
            )
        ids = torch.arange(self.vocab_size, device=self.project_in.weight.device)[None, None]
        with torch.no_grad():
            tables = [leaf.decode(ids)[0].T for leaf in leaves(self.codebook)]
        return tables[0] if len(tables) == 1 else torch.stack(tables)

    def check_ids(self) -> None:
        """Refuse to make ids with a codebook that has none."""
        if self.codebook.num_codebooks == 0:
            raise ConfigError(
                f"codebook={self.specification['codebook']['kind']} is continuous, so there are no "
                "token ids: use latents(images) and quantize(latents), or another codebook"
            )

    def token_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the ids of one image of that size in px."""
        self.check_size(height, width)
        tokens = self.codebook.tokens((height // self.downsampling, width // self.downsampling))
        k = self.codebook.num_codebooks
        return tokens if k == 1 else (k, *tokens)

    def check_size(self, height: int, width: int) -> None:
        """Refuse an image size that is not a multiple of the downsampling."""
        if height % self.downsampling or width % self.downsampling or not height or not width:
            raise ConfigError(
                f"an image of {height} x {width} px does not divide into tokens of "
                f"{self.downsampling} x {self.downsampling} px: both sides must be multiples of "
                f"{self.downsampling}"
            )

    def latents(
        self, images: Float[Tensor, "b c h w"], *, tile: int | None = None
    ) -> Float[Tensor, "b d *grid"]:
        """Encode images in [-1, 1] into continuous latents, before quantization.

        Args:
            images: Any number of them.
            tile: Side in px of the pieces that larger images are encoded in; None for no pieces.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ConfigError(
                f"this tokenizer takes images [b, {self.channels}, h, w], got {list(images.shape)}"
            )
        self.token_shape(images.shape[2], images.shape[3])  # refuses a size that does not fit
        if tile is None:
            return self.project_in(self.encoder(images))
        check_tile(tile, self.downsampling)
        return self.project_in(in_tiles(self.encoder, images, tile=tile, unit=self.downsampling))

    def quantize(self, latents: Float[Tensor, "b d *grid"]) -> Quantized:
        """Quantize latents, in at least float32 whatever the surrounding autocast says.

        Raises:
            VqtrainError: If they are not finite.
        """
        if not torch.compiler.is_compiling():
            check_finite(latents)
        return self._quantize(latents)

    def _quantize(self, latents: Float[Tensor, "b d *grid"]) -> Quantized:
        with without_autocast(latents):
            return self.codebook(at_least_float32(latents))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Reconstruction:
        """Encode, quantize and decode images in [-1, 1], with gradients.

        Where latents are not finite, so is the result: its loss or its images.
        """
        latents = self.latents(images)
        quantized = self._quantize(latents)
        made = self.decode_latents(quantized.z_q)
        return Reconstruction(images=made, quantized=quantized, latents=latents)

    @torch.no_grad()
    def encode(
        self,
        images: Float[Tensor, "b c h w"],
        *,
        batch_size: int | None = None,
        tile: int | None = None,
    ) -> Int64[Tensor, " b *tokens"]:
        """Turn images in [-1, 1] into ids: [b, h/f, w/f], or [b, k, ...] for k > 1 codebooks.

        Args:
            images: On any device: they are moved to the tokenizer's, and the ids back to theirs.
            batch_size: Images at once; None for all.
            tile: Side in px of the pieces that larger images are encoded in, a multiple of the
                downsampling; None for no pieces. Where a network normalizes over the whole image,
                ids differ from those of the whole.

        Raises:
            ConfigError: If the images do not fit, or the codebook is continuous.
        """
        self.check_ids()
        if batch_size is not None:
            check_batch_size(batch_size)
            batches = [self.encode(batch, tile=tile) for batch in torch.split(images, batch_size)]
            return torch.cat(batches)
        own = images.to(self.project_in.weight)
        token_ids = self.quantize(self.latents(own, tile=tile)).token_ids.to(images.device)
        return token_ids[:, 0] if self.codebook.num_codebooks == 1 else token_ids

    @torch.no_grad()
    def decode(
        self,
        token_ids: Int64[Tensor, " b *tokens"],
        *,
        batch_size: int | None = None,
        tile: int | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Turn ids, in the shape that ``encode`` gives, into images in [-1, 1].

        Args:
            token_ids: On any device: they are moved to the tokenizer's, and the images back.
            batch_size: Images at once; None for all.
            tile: As of ``encode``, in px of the images; pieces overlap and are blended.

        Raises:
            ConfigError: If an id is out of range, or the codebook is continuous.
        """
        self.check_ids()
        if batch_size is not None:
            check_batch_size(batch_size)
            batches = [self.decode(ids, tile=tile) for ids in torch.split(token_ids, batch_size)]
            return torch.cat(batches)
        if not torch.compiler.is_compiling():
            check_range(token_ids, self.vocab_size)
        own = token_ids.to(self.project_out.weight.device)
        with without_autocast(own):
            z_q = self.codebook.decode(own[:, None] if self.codebook.num_codebooks == 1 else own)
        return self.decode_latents(z_q, tile=tile).clamp(-1, 1).to(token_ids.device)

    def decode_latents(
        self, z_q: Float[Tensor, "b d *grid"], *, tile: int | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Decode quantized latents, with gradients, into images that may overshoot [-1, 1]."""
        hidden = self.project_out(z_q.to(self.project_out.weight.dtype))
        if tile is None:
            return self.decoder(hidden)
        check_tile(tile, self.downsampling)
        return in_tiles(self.decoder, hidden, tile=tile // self.downsampling, unit=1)

    def preprocess(self, picture: "Picture | np.ndarray") -> Float[Tensor, "1 c h w"]:
        """Turn a PIL picture, or an array [h, w] or [h, w, c], into images in [-1, 1].

        Arrays are uint8, or hold values in ``pixel_range``. The picture is cropped at its center to
        multiples of the downsampling, never resized; where it is transparent it becomes white.

        Raises:
            BadSampleError: If its channels, its values or its size do not fit.
        """
        from vqtrain.tokenizer.preprocessing import to_pixels  # not needed to load a tokenizer

        pixels = to_pixels(
            picture, channels=self.channels, value_range=self.pixel_range, unit=self.downsampling
        )
        return self.to_images(pixels[None]).to(self.project_in.weight)

    def to_images(
        self, pixels: Shaped[Tensor, "b c h w"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "b c h w"]:
        """Turn pixels, uint8 or in ``pixel_range``, into images in [-1, 1]."""
        return to_images(pixels, dtype, value_range=self.pixel_range)

    def to_pixels(self, images: Float[Tensor, "b c h w"]) -> Shaped[Tensor, "b c h w"]:
        """Turn images in [-1, 1] into pixels, clamped: uint8, rounded, or in ``pixel_range``."""
        return to_pixels(images, value_range=self.pixel_range)

    def load_weights(self, weights: Mapping[str, Shaped[Tensor, "..."]]) -> None:
        """Load weights by name, and name every one that is missing, unknown or misshaped.

        Raises:
            ConfigError: If a name or a shape differs.
        """
        wrong = differences(weights, self.state_dict())
        if wrong:
            rest = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise ConfigError(f"the weights do not fit: {'; '.join(wrong[:3])}{rest}")
        self.load_state_dict(dict(weights))


def leaves(codebook: Codebook) -> list[Codebook]:
    """List the codebooks that have vectors of their own, and are not made of others."""
    inner = codebook.inner_codebooks().values()
    return [leaf for each in inner for leaf in leaves(each)] or [codebook]
