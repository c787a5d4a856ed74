"""The encoder that leaves samples as they are."""

import pytest
import torch

from vqtrain.encoders.identity import IdentityEncoder
from vqtrain.errors import ConfigError


def test_samples_are_the_latents() -> None:
    encoder = IdentityEncoder(in_channels=5)
    assert (encoder.out_channels, encoder.downsampling, encoder.grid((3, 7))) == (5, (1, 1), (3, 7))
    assert encoder.state_dict() == {}
    samples = torch.randn(2, 5, 3, 7)
    assert torch.equal(encoder(samples), samples)


def test_no_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="in_channels must be at least 1, got 0"):
        IdentityEncoder(in_channels=0)
