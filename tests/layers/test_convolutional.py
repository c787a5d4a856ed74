"""The norm that the latents of an image set."""

import torch
import torch.nn.functional as F

from vqtrain.layers.convolutional import AdaptiveGroupNorm


def test_latents_scale_and_shift_what_is_normalized() -> None:
    torch.manual_seed(0)
    norm = AdaptiveGroupNorm(64, 3)
    assert "norm.weight" not in norm.state_dict()  # without an affine map of its own
    x, latents = torch.randn(2, 64, 4, 4), torch.randn(2, 3, 2, 2)
    flat = latents.flatten(2)
    deviation = ((flat - flat.mean(2, keepdim=True)).square().sum(2) / 3 + 1e-6).sqrt()
    scale = deviation @ norm.gamma.weight.T + norm.gamma.bias
    shift = flat.mean(2) @ norm.beta.weight.T + norm.beta.bias
    want = F.group_norm(x, 32, eps=1e-6) * scale[..., None, None] + shift[..., None, None]
    torch.testing.assert_close(norm(x, latents), want)
