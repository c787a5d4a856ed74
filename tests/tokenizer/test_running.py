"""Networks by pieces of a sample: what they give, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqtrain.decoders.base import Decoder
from vqtrain.decoders.vqvae import VQVAEDecoder
from vqtrain.encoders.base import Encoder
from vqtrain.encoders.magvit2_video import MAGVIT2VideoEncoder
from vqtrain.errors import ConfigError
from vqtrain.layers.causal import CausalConv, CausalTransposedConv
from vqtrain.layers.pointwise import Pointwise
from vqtrain.tokenizer import running
from vqtrain.tokenizer.checks import check_tile


class Down(Encoder):
    """A causal encoder of sounds."""

    out_channels, downsampling, causal, latents_at_once = 33, (4,), True, 2

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            CausalConv(1, 16, [7]),
            nn.SiLU(),
            CausalConv(16, 33, [8], stride=[4], first_alone=False),
            nn.ELU(),
            CausalConv(33, 33, [3]),
        )

    def forward(self, samples: Tensor) -> Tensor:
        """Encode."""
        return self.layers(samples)


class Up(Decoder):
    """A causal decoder of sounds."""

    in_channels, upsampling, causal = 16, (4,), True

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(CausalTransposedConv(16, 8, 8, stride=4), nn.ELU())
        self.conv = CausalConv(8, 1, [7])

    @property
    def last_layer(self) -> nn.Module:
        """The last convolution."""
        return self.conv.conv

    def forward(self, z_q: Tensor) -> Tensor:
        """Decode."""
        return self.conv(self.layers(z_q))


def encode(samples: Tensor, piece: int | None = None, tile: int | None = None) -> Tensor:
    torch.manual_seed(0)
    down, project = Down().eval(), Pointwise(33, 5)
    return running.encode(down, project, samples, check=None, tile=tile, piece=piece)


def decode(z_q: Tensor, piece: int | None = None) -> Tensor:
    torch.manual_seed(0)
    up, project = Up().eval(), Pointwise(5, 16)
    return running.decode(up, project, z_q, tile=None, piece=piece, to=torch.device("cpu"))


@pytest.mark.parametrize("threads", [1, 2])
def test_pieces_and_what_comes_later_change_no_bit(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        samples = torch.rand(3, 1, 100) * 2 - 1
        latents = encode(samples)
        assert encode(samples, piece=8).equal(latents)
        assert encode(samples, piece=40).equal(latents)
        later = torch.cat([samples[:, :, :56], -samples[:, :, 56:]], dim=2)
        assert encode(later)[:, :, :14].equal(latents[:, :, :14])
        decoded = decode(latents)
        assert decoded.shape == samples.shape
        assert decode(latents, piece=4).equal(decoded)
        assert decode(latents, piece=28).equal(decoded)
        assert decode(latents[:, :, :9]).equal(decoded[:, :, :36])
    finally:
        torch.set_num_threads(before)


def test_steps_compute_what_the_whole_network_does() -> None:
    torch.manual_seed(0)
    down, project, samples = Down(), Pointwise(33, 5), torch.rand(2, 1, 60)
    torch.testing.assert_close(encode(samples), project(down(samples)))
    torch.manual_seed(0)
    up, project, z_q = Up(), Pointwise(5, 16), torch.randn(2, 5, 9)
    torch.testing.assert_close(decode(z_q), up(project(z_q)))


def test_tiles_of_a_causal_clip_are_whole_in_time() -> None:
    torch.manual_seed(0)
    sizes: Any = {"channels": 8, "multipliers": [1, 1], "time_strides": [2], "num_blocks": 1}
    encoder = MAGVIT2VideoEncoder(in_channels=3, latent_channels=2, **sizes).eval()
    clips = torch.rand(1, 3, 5, 16, 40) * 2 - 1
    whole, tiled = (
        running.encode(encoder, Pointwise(2, 2), clips, check=None, tile=tile, piece=None)
        for tile in (None, 16)
    )
    assert tiled.shape == whole.shape == (1, 2, 3, 8, 20)
    check_tile(16, encoder)
    with pytest.raises(ConfigError, match="tile must be a multiple of 2 px and at least 16, got 8"):
        check_tile(8, encoder)
    with pytest.raises(ConfigError, match="tile is for samples of several axes: use piece"):
        check_tile(32, Down())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: encode(torch.zeros(1, 1, 64), piece=12), "piece must be a multiple of 8, got 12"),
        (lambda: encode(torch.zeros(1, 1, 64), piece=0), "piece must be a multiple of 8, got 0"),
        (lambda: encode(torch.zeros(1, 1, 64), piece=8, tile=32), "tile=32 and piece=8 exclude"),
        (
            lambda: running.decode(
                VQVAEDecoder(
                    out_channels=3, channels=8, block_channels=4, num_blocks=1, num_upsamplings=1
                ),
                Pointwise(4, 8),
                torch.zeros(1, 4, 2, 2),
                tile=None,
                piece=8,
                to=torch.device("cpu"),
            ),
            "piece=8 needs a causal decoder, and VQVAEDecoder is not: use tile or batch_size",
        ),
    ],
)
def test_pieces_that_cannot_be_are_refused(wrong: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrong()
