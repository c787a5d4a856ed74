"""The discriminator of EnCodec: complex spectra at several resolutions."""

from collections.abc import Sequence
from typing import Annotated, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from vqtrain.discriminators.base import FeatureDiscriminator, Judged
from vqtrain.discriminators.parts.maps import maps_of
from vqtrain.errors import require
from vqtrain.ops.spectra import stft
from vqtrain.ranges import at_least, checked

SLOPE = 0.3
DILATIONS = (1, 2, 4)  # along time


@final
class MSSTFT(FeatureDiscriminator):
    """Classifies short-time spectra, each resolution by a network of its own.

    A network sees the real and the imaginary part of each channel as channels, so it sees phase.
    Its convolutions halve the frequencies and keep the frames.

    Args:
        in_channels: Channels of a sound, at least 1.
        channels: Width of the convolutions, at least 1.
        frames: Length of the frames of each resolution, even numbers; they overlap by three
            quarters.
        sample_size: Of a sample: its length.

    Raises:
        ConfigError: If the samples are no sounds or shorter than a frame, or an argument is out of
            range.

    References:
        Defossez et al. 2022, arXiv:2210.13438 (EnCodec), section 3.4 and figure 2, and the slope of
        its later code.
    """

    axes = 1
    size_hint = "with shorter discriminator.frames it takes shorter sounds"

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        frames: Sequence[int],
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        require(
            len(frames) > 0 and all(n >= 4 and n % 2 == 0 for n in frames),
            f"frames must be even numbers of at least 4, got {list(frames)}",
        )
        require(
            len(sample_size) == 1 and max(frames) <= sample_size[0],
            f"frames must be no longer than a sound of {sample_size[0]:,} samples, got "
            f"{list(frames)}",
        )
        self.frames = tuple(frames)
        self.networks = nn.ModuleList(network(2 * in_channels, channels) for _ in frames)

    def judge(self, samples: Float[Tensor, "b c t"]) -> Judged:
        """Return a logit for each frame and 8 of its frequencies, of every resolution."""
        logits, features = [], []
        for frame, layers in zip(self.frames, self.networks, strict=True):
            assert isinstance(layers, nn.ModuleList), "as it is built"
            spectrum = stft(samples, n_fft=frame, hop=frame // 4, centered=False)
            # By the root of the window's power, so that noise has the same size in all.
            spectrum = spectrum / (frame * 3 / 8) ** 0.5
            x = torch.cat([spectrum.real, spectrum.imag], dim=1)
            x = rearrange(x, "b c frequencies frames -> b c frames frequencies")
            *maps, last = maps_of(layers, x, slope=SLOPE)
            logits.append(last)
            features.append(maps)
        return Judged(logits=logits, features=features)


def network(in_channels: int, channels: int) -> nn.ModuleList:
    """Build the convolutions of one resolution, the last of which gives logits."""
    first = nn.Conv2d(in_channels, channels, (3, 9), padding=(1, 4))
    dilated = [
        nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), dilation=(n, 1), padding=(n, 4))
        for n in DILATIONS
    ]
    others = [nn.Conv2d(channels, width, 3, padding=1) for width in (channels, 1)]
    return nn.ModuleList([first, *map(weight_norm, (*dilated, *others))])
