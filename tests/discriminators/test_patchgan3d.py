"""The patch discriminator of clips against a formula and counts by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain.discriminators.patchgan3d import PatchGAN3D
from vqtrain.errors import ConfigError


def patchgan3d(**changes: object) -> PatchGAN3D:
    arguments = {"in_channels": 3, "channels": 4, "num_layers": 3, "norm": "group", **changes}
    return PatchGAN3D(**arguments)  # type: ignore[arg-type]  # plain data


def test_it_has_the_parameters_of_the_published_network() -> None:
    # 3 x 3 x 3 kernels. 3 -> 64 with a bias; 64 -> 128 -> 256 -> 512 without one, each with a scale
    # and a shift; 512 -> 1 with a bias.
    expected = 27 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    expected += 2 * (128 + 256 + 512)
    network = patchgan3d(channels=64, norm="batch")
    assert sum(p.numel() for p in network.parameters()) == expected == 4_665_729
    assert not list(network.buffers())


def test_value_and_gradient_are_those_of_the_formula() -> None:
    network = patchgan3d(norm="batch").double()
    clips = (torch.rand(2, 3, 5, 18, 16, dtype=torch.float64) * 2 - 1).requires_grad_()

    def formula(x: Tensor) -> Tensor:
        convolutions = [m for m in network.modules() if isinstance(m, nn.Conv3d)]
        norms = [None, *(m for m in network.modules() if isinstance(m, nn.BatchNorm3d)), None]
        strides = [(2, 2, 2), (2, 2, 2), (1, 2, 2), (1, 1, 1), (1, 1, 1)]
        for own, norm, stride in zip(convolutions, norms, strides, strict=True):
            x = F.conv3d(F.pad(x, [1] * 6), own.weight, own.bias, stride=stride)
            if norm is not None:
                x = x - x.mean((0, 2, 3, 4), keepdim=True)
                x = x / (x.square().mean((0, 2, 3, 4), keepdim=True) + 1e-5).sqrt()
                x = x * norm.weight[:, None, None, None] + norm.bias[:, None, None, None]
            if own is not convolutions[-1]:
                x = torch.maximum(x, 0.2 * x)
        return x

    (found,), expected = network(clips), formula(clips)
    # 5 -> 3 -> 2 frames, 18 -> 9 -> 5 -> 3 rows, 16 -> 8 -> 4 -> 2 columns.
    assert found.shape == (2, 1, 2, 3, 2)
    torch.testing.assert_close(found, expected)
    weights = [clips, *network.parameters()]
    both = [torch.autograd.grad(x.square().sum(), weights) for x in (found, expected)]
    assert all(bool((gradient != 0).any()) for gradient in both[0])
    torch.testing.assert_close(*both)


def test_a_logit_sees_31_frames_of_47_pixels() -> None:
    clip = torch.randn(1, 3, 49, 64, 64, requires_grad=True)
    (logits,) = patchgan3d(norm="none")(clip)
    logits[0, 0, 6, 4, 4].backward()
    assert clip.grad is not None
    seen = clip.grad[0].abs().sum(0)
    along = [(seen.sum(axes) > 0).sum().item() for axes in ((1, 2), (0, 2), (0, 1))]
    assert along == [31, 47, 47]


def test_an_image_is_a_clip_of_one_frame() -> None:
    (logits,) = patchgan3d()(torch.rand(1, 3, 1, 16, 16))
    assert logits.shape == (1, 1, 1, 2, 2)


def test_what_does_not_fit_is_refused() -> None:
    assert [patchgan3d(norm=norm).least_batch_size for norm in ("group", "batch")] == [1, 2]
    with pytest.raises(ConfigError, match="norm must be one of none, group, batch, spectral"):
        patchgan3d(norm="layer")
