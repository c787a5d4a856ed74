"""The multi-period discriminator of HiFi-GAN."""

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
from vqtrain.ranges import at_least, checked

SLOPE = 0.1
# Of each convolution but the last: its width, in ``channels``.
WIDTHS = (1, 4, 16, 32, 32)


@final
class MultiPeriod(FeatureDiscriminator):
    """Classifies sounds that are folded by a period, each period by a network of its own.

    A sound of t samples becomes an image of t / p rows of p samples, whose columns the convolutions
    see alone: every p-th sample. So a network sees whether a pitch of its period is right.

    Args:
        in_channels: Channels of a sound, at least 1.
        channels: Width of the first convolution, at least 1; those after it have 4, 16, 32 and 32
            times as many.
        periods: Different numbers of at least 2, in the papers primes.
        sample_size: Of a sample: its length.

    Raises:
        ConfigError: If the samples are no sounds or too short, or an argument is out of range.

    References:
        Kong et al. 2020, arXiv:2010.05646 (HiFi-GAN), section 2.3, and its code; Kumar et al. 2023,
        arXiv:2306.06546 (DAC).
    """

    axes = 1
    size_hint = "with smaller discriminator.periods it takes shorter sounds"

    @checked
    def __init__(
        self,
        *,
        in_channels: Annotated[int, at_least(1)],
        channels: Annotated[int, at_least(1)],
        periods: Sequence[int],
        sample_size: Sequence[int],
    ) -> None:
        super().__init__()
        require(
            len(periods) > 0 and min(periods) >= 2 and len({*periods}) == len(periods),
            f"periods must be different numbers of at least 2, got {list(periods)}",
        )
        require(
            len(sample_size) == 1 and max(periods) <= sample_size[0],
            f"periods must be no longer than a sound of {sample_size[0]:,} samples, got "
            f"{list(periods)}",
        )
        self.periods = tuple(periods)
        self.networks = nn.ModuleList(network(in_channels, channels) for _ in periods)

    def judge(self, samples: Float[Tensor, "b c t"]) -> Judged:
        """Return one logit for 81 rows of each column, for every period."""
        logits, features = [], []
        for period, layers in zip(self.periods, self.networks, strict=True):
            assert isinstance(layers, nn.ModuleList), "as it is built"
            missing = -samples.shape[2] % period
            # Mirrored at the end, without the last sample; torch's own padding has no deterministic
            # gradient on a GPU.
            end = samples[..., samples.shape[2] - 1 - missing : -1].flip(2)
            x = rearrange(torch.cat([samples, end], dim=2), "b c (n p) -> b c n p", p=period)
            *maps, last = maps_of(layers, x, slope=SLOPE)
            logits.append(last)
            features.append(maps)
        return Judged(logits=logits, features=features)


def network(in_channels: int, channels: int) -> nn.ModuleList:
    """Build the convolutions of one period, the last of which gives logits."""
    layers, before = [], in_channels
    for number, factor in enumerate(WIDTHS, start=1):
        stride = 1 if number == len(WIDTHS) else 3
        width = channels * factor
        layers.append(nn.Conv2d(before, width, (5, 1), stride=(stride, 1), padding=(2, 0)))
        before = width
    layers.append(nn.Conv2d(before, 1, (3, 1), padding=(1, 0)))
    return nn.ModuleList(map(weight_norm, layers))
