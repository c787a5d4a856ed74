"""The tokenizer: an encoder, a codebook and a decoder as one plain module."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from vqtrain import distributed
from vqtrain.build import build_part
from vqtrain.codebooks.base import Codebook, Quantized, leaves
from vqtrain.decoders.base import Decoder
from vqtrain.encoders.base import Encoder
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.layers.pointwise import Pointwise
from vqtrain.ops.pixels import ValueRange, to_images, to_pixels
from vqtrain.ops.precision import at_least_float32, widened, without_autocast
from vqtrain.ops.tiles import in_batches
from vqtrain.shapes import by
from vqtrain.token_ids import as_token_ids
from vqtrain.tokenizer import checks, running, storage
from vqtrain.tokenizer.reconstruction import Reconstruction

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PILImage


class Tokenizer(nn.Module):
    """Turns samples into grids of integers from a learned vocabulary, and back.

    A sample is an image [c, h, w], a clip [c, t, h, w] or a sound [c, t], depending on the encoder
    and the decoder.

    Args:
        encoder: ``{"kind": word, "arguments": {...}}``, as in ``config.json``.
        codebook: In the same form.
        decoder: In the same form.
        channels: Channels of a sample.
        training: Facts about the training, as plain data; kept in ``config.json``.
        pixel_range: Values of black and white of float32 pixels; None for uint8 pixels in 0..255.

    Raises:
        ConfigError: If a module cannot be built, if the modules do not fit each other, or if the
            range is invalid.

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
        checks.check_range(pixel_range)
        self.pixel_range = pixel_range
        self.specification = {"encoder": encoder, "codebook": codebook, "decoder": decoder}
        self.channels = channels
        self.training_summary = dict(training or {})
        self.encoder = cast(Encoder, build_part("encoder", encoder))
        wide = widened(torch.get_default_dtype())
        self.codebook = cast(Codebook, build_part("codebook", codebook)).to(wide)
        self.decoder = cast(Decoder, build_part("decoder", decoder))
        if self.encoder.downsampling != self.decoder.upsampling:
            raise ConfigError(
                f"the encoder divides the size of a sample by {by(self.encoder.downsampling)}, but "
                f"the decoder multiplies it by {by(self.decoder.upsampling)}: make them equal"
            )
        # Always present, so that no module depends on its neighbor and foreign weights fit.
        self.project_in = Pointwise(self.encoder.out_channels, self.codebook.in_channels)
        self.project_out = Pointwise(self.codebook.dim, self.decoder.in_channels)

    @classmethod
    def from_pretrained(cls, path: str | Path, *, allow: Sequence[str] = ()) -> "Tokenizer":
        """Load a tokenizer, in eval mode, on the CPU.

        Args:
            path: A tokenizer directory (one of ``format=transformers`` is one), a run directory, a
                checkpoint file, or ``hf://org/name``.
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
            tokenizer.load_weights(storage.stored(weights, tokenizer))
        except ConfigError as error:
            raise CheckpointError(f"cannot read {path}: {error}") from error
        return tokenizer.eval()

    def save_pretrained(self, path: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into a directory; collective if split.

        Raises:
            CheckpointError: If they cannot be written; existing files stay intact.
        """
        storage.write(Path(path), self.config, distributed.all_whole(self.state_dict()))

    def folded(self) -> "Tokenizer":
        """Return this tokenizer for inference: tables that are computed at each call become plain.

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
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("codebook.")}
        folded = {f"codebook.{name}": tensor for name, tensor in codebook.weights.items()}
        tokenizer.load_weights({**own, **folded})
        return tokenizer.eval()

    @property
    def config(self) -> dict[str, object]:
        """The content of ``config.json``, as plain data."""
        return {
            **self.specification,
            "image": storage.image_config(self.channels, self.pixel_range),
            "downsampling": list(self.downsampling),
            "token_ids": storage.token_config(self.codebook),
            "training": self.training_summary,
        }

    @property
    def vocab_size(self) -> int:
        """Number of ids of each codebook."""
        return self.codebook.size

    @property
    def downsampling(self) -> tuple[int, ...]:
        """Elements of a sample per grid position, along each axis; (16, 16) for images, say."""
        return self.encoder.downsampling

    @property
    def unit(self) -> tuple[int, ...]:
        """What the sides of a sample must be multiples of; the downsampling of most codebooks."""
        return tuple(factor * self.codebook.grid_unit for factor in self.downsampling)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.project_in.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights outside the codebook."""
        return self.project_in.weight.dtype

    @property
    def codebook_vectors(self) -> Float[Tensor, "*k size dim"]:
        """The vectors of all ids, in their order; [k, size, dim] with several codebooks.

        Raises:
            ConfigError: If there are no ids, or too many to list.
        """
        self.check_ids()
        checks.check_listed(self.vocab_size)
        ids = torch.arange(self.vocab_size, device=self.device)[None, None]
        with torch.no_grad():
            tables = [leaf.decode(ids)[0].T for leaf in leaves(self.codebook)]
        return tables[0] if len(tables) == 1 else torch.stack(tables)

    def check_ids(self, instead: str | None = None) -> None:
        """Refuse a codebook that has no ids, and say what to use ``instead``."""
        checks.check_ids(self.codebook, self.specification["codebook"], instead)

    def token_shape(self, *size: int) -> tuple[int, ...]:
        """Return the shape of the ids of one sample, given the sizes of its axes.

        Raises:
            ConfigError: If the encoder or the codebook does not take that size.
        """
        tokens, k = self.codebook.tokens(self.encoder.grid(size)), self.codebook.num_codebooks
        return tokens if k == 1 else (k, *tokens)

    def latents(
        self,
        samples: Shaped[Tensor, "*shape"],
        *,
        tile: int | None = None,
        piece: int | None = None,
    ) -> Float[Tensor, "b d *grid"]:
        """Encode samples in [-1, 1] into continuous latents, before quantization.

        Args:
            samples: Any number of them, on any device: they are moved to the tokenizer's.
            tile: As in ``encode``.
            piece: As in ``encode``.

        Raises:
            ConfigError: If they do not fit in shape or type or, in eval mode, are not in [-1, 1].
        """
        checks.check_samples(samples, self.channels, self.downsampling)
        self.token_shape(*samples.shape[2:])  # refuses a size that does not fit
        checks.check_tile(tile, self.encoder)
        return running.encode(
            self.encoder,
            self.project_in,
            samples,
            check=None if self.training else checks.check_values,
            tile=tile,
            piece=piece,
        )

    def quantize(self, latents: Float[Tensor, "b d *grid"]) -> Quantized:
        """Quantize latents, in at least float32 even under autocast.

        Raises:
            VqtrainError: If they are not finite.
        """
        if not torch.compiler.is_compiling():
            checks.check_finite(latents)
        return self._quantize(latents)

    def _quantize(self, latents: Float[Tensor, "b d *grid"]) -> Quantized:
        with without_autocast(latents):
            return self.codebook(at_least_float32(latents))

    def forward(
        self,
        samples: Shaped[Tensor, "*shape"],
        *,
        change: Callable[[Quantized], Tensor] | None = None,
    ) -> Reconstruction:
        """Encode, quantize and decode samples in [-1, 1], with gradients.

        With ``change`` the decoder gets what it makes of the quantized latents. If latents are not
        finite, neither are the loss and the reconstruction; samples are checked as in ``latents``.
        """
        latents = self.latents(samples)
        quantized = self._quantize(latents)
        decoded = self._decode(change(quantized) if change else quantized.z_q)
        return Reconstruction.of(decoded, self.channels, quantized=quantized, latents=latents)

    @torch.no_grad()
    def reconstruct(self, samples: Shaped[Tensor, "*shape"]) -> Float[Tensor, "b c *size"]:
        """Return the reconstructions of samples in [-1, 1], clamped to that range.

        Samples may be on any device; the reconstructions come back to theirs.

        Raises:
            ConfigError: As ``latents``.
            VqtrainError: If latents are not finite.
        """
        quantized = self.quantize(self.latents(samples))
        return self.decode_latents(quantized.z_q).clamp(-1, 1).to(samples.device)

    @torch.no_grad()
    def encode(
        self,
        samples: Shaped[Tensor, "*shape"],
        *,
        batch_size: int | None = None,
        tile: int | None = None,
        piece: int | None = None,
    ) -> Int64[Tensor, " b *tokens"]:
        """Turn samples in [-1, 1] into ids: [b, h/f, w/f] for images; [b, k, ...] for k codebooks.

        Args:
            samples: On any device: they are moved to the tokenizer's, and the ids back to theirs.
            batch_size: Samples at once; None for all.
            tile: Side of the tiles in which larger samples are encoded, in px, a multiple of the
                downsampling; None for no tiles. If a network normalizes over the whole sample, ids
                differ from those without tiles.
            piece: For a causal encoder: how much of the first axis, frames of a clip say, is on the
                tokenizer's device at once, a multiple of its downsampling; None for all. Ids are
                those of the whole, bit for bit.

        Raises:
            ConfigError: As ``latents``, or if the codebook is continuous.
        """
        self.check_ids()
        if batch_size is not None:
            encode = partial(self.encode, tile=tile, piece=piece)
            return in_batches(encode, samples, batch_size)
        latents = self.latents(samples, tile=tile, piece=piece)
        token_ids = self.quantize(latents).token_ids.to(samples.device)
        return token_ids[:, 0] if self.codebook.num_codebooks == 1 else token_ids

    @torch.no_grad()
    def decode(
        self,
        token_ids: Shaped[Tensor, "*shape"],
        *,
        batch_size: int | None = None,
        tile: int | None = None,
        piece: int | None = None,
    ) -> Float[Tensor, "b c *size"]:
        """Turn ids, in the shape that ``encode`` gives, into samples in [-1, 1].

        Args:
            token_ids: Integers of any width, on any device: they are moved to the tokenizer's, and
                the samples back. Of a ``residual`` codebook any number of first depths decodes.
            batch_size: Samples at once; None for all.
            tile: As in ``encode``, in px of the samples; tiles overlap and are blended.
            piece: As in ``encode``, in frames of the clips, say, for a causal decoder.

        Raises:
            ConfigError: If ids do not fit in type, shape or range, or the codebook is continuous.
        """
        self.check_ids()
        if batch_size is not None:
            decode = partial(self.decode, tile=tile, piece=piece)
            return in_batches(decode, token_ids, batch_size)
        checks.check_token_shape(token_ids.shape, self.codebook, self.decoder)
        own = as_token_ids(token_ids, self.vocab_size).to(self.device)
        with without_autocast(own):
            z_q = self.codebook.decode(own[:, None] if self.codebook.num_codebooks == 1 else own)
        decoded = self._decode(z_q, tile=tile, piece=piece, to=token_ids.device)
        return decoded[:, : self.channels].clamp(-1, 1)

    def decode_latents(
        self, z_q: Float[Tensor, "b d *grid"], *, tile: int | None = None
    ) -> Float[Tensor, "b c *size"]:
        """Decode quantized latents, with gradients, into samples that may overshoot [-1, 1]."""
        decoded = self._decode(z_q, tile=tile)
        return decoded[:, : self.channels] if self.decoder.extra_channels else decoded

    def _decode(
        self,
        z_q: Float[Tensor, "b d *grid"],
        *,
        tile: int | None = None,
        piece: int | None = None,
        to: torch.device | None = None,
    ) -> Tensor:
        checks.check_tile(tile, self.encoder)
        to = to or self.device
        return running.decode(self.decoder, self.project_out, z_q, tile=tile, piece=piece, to=to)

    def preprocess(self, sample: "PILImage | np.ndarray") -> Float[Tensor, "1 c *size"]:
        """Turn a PIL image, or the array of a sample, into samples in [-1, 1].

        Images [h, w] or [h, w, c] and clips [t, h, w, c] are uint8 or in ``pixel_range``, sounds
        [t] or [c, t] int16 or floats in [-1, 1]. Cropped, never resampled; transparent parts white.

        Raises:
            BadSampleError: If its channels, its values or its size do not fit.
        """
        from vqtrain.tokenizer import preprocessing  # not needed to load one

        pixels = preprocessing.to_pixels(
            sample, axes=len(self.unit), channels=self.channels, value_range=self.pixel_range
        )
        fitting = preprocessing.fitting(pixels, self.unit, self.token_shape)
        return self.to_images(fitting[None]).to(self.project_in.weight)

    def to_images(
        self, pixels: Shaped[Tensor, "b c *size"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "b c *size"]:
        """Turn pixels, uint8 or in ``pixel_range``, into samples in [-1, 1]."""
        return to_images(pixels, dtype, value_range=self.pixel_range)

    def to_pixels(self, samples: Float[Tensor, "b c *size"]) -> Shaped[Tensor, "b c *size"]:
        """Turn samples in [-1, 1] into pixels, clamped: uint8, rounded, or in ``pixel_range``."""
        return to_pixels(samples, value_range=self.pixel_range)

    def load_weights(self, weights: Mapping[str, Shaped[Tensor, "..."]]) -> None:
        """Load weights by name; report those that are missing, unknown or of another shape.

        Raises:
            ConfigError: If a name or a shape differs.
        """
        checks.check_weights(weights, self.state_dict())
        self.load_state_dict(distributed.all_split(weights, like=self.state_dict()))
