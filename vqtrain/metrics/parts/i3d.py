"""The I3D network, whose features of clips the Frechet video distance compares."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 400
# Sides of a frame, in px: the mean at the end is over 7 x 7 positions of 32 px.
SIDE = 224
# Channels into a module, and of its branches: a convolution; two of two; and one after a pool.
MIXED = {
    "3b": (192, 64, (96, 128), (16, 32), 32),
    "3c": (256, 128, (128, 192), (32, 96), 64),
    "4b": (480, 192, (96, 208), (16, 48), 64),
    "4c": (512, 160, (112, 224), (24, 64), 64),
    "4d": (512, 128, (128, 256), (24, 64), 64),
    "4e": (512, 112, (144, 288), (32, 64), 64),
    "4f": (528, 256, (160, 320), (32, 128), 128),
    "5b": (832, 256, (160, 320), (32, 128), 128),
    "5c": (832, 384, (192, 384), (48, 128), 128),
}


def padded(
    x: Float[Tensor, "b c t h w"], kernel: tuple[int, ...], stride: tuple[int, ...]
) -> Float[Tensor, "b c t2 h2 w2"]:
    """Pad with zeros as TensorFlow does, so that an axis of n gives n / stride, rounded up.

    Of an odd number of zeros the larger half comes last.
    """
    widths: list[int] = []
    for side, own, step in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(0, own - (side % step or step))
        widths = [total // 2, total - total // 2, *widths]
    return F.pad(x, widths)


@final
class Unit(nn.Module):
    """A convolution, a batch normalization and a ReLU.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Along each axis.
        stride: Along each axis.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel_size, stride, bias=False)
        self.bn = nn.BatchNorm3d(out_channels)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t2 h2 w2"]:
        """Return the activations."""
        x = padded(x, self.conv3d.kernel_size, self.conv3d.stride)
        return F.relu(self.bn(self.conv3d(x)))


@final
class MaxPool(nn.Module):
    """Takes the largest values of windows, and zeros beyond the border: activations are positive.

    Args:
        kernel: Of a window, along time, height and width.
        stride: From window to window.
    """

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """Return the largest values."""
        return F.max_pool3d(padded(x, self.kernel, self.stride), self.kernel, self.stride)


@final
class Mixed(nn.Module):
    """Four branches side by side, one of the ``MIXED``."""

    def __init__(
        self, channels: int, first: int, second: tuple[int, int], third: tuple[int, int], last: int
    ) -> None:
        super().__init__()
        self.b0 = Unit(channels, first, 1)
        self.b1a, self.b1b = Unit(channels, second[0], 1), Unit(*second, 3)
        self.b2a, self.b2b = Unit(channels, third[0], 1), Unit(*third, 3)
        self.pool = MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(channels, last, 1)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b d t h w"]:
        """Join the branches."""
        branches = self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.pool(x))
        return torch.cat(branches, 1)


@final
class Logits(nn.Module):
    """A linear map at each moment of the mean over space and two moments."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(1024, CLASSES, 1)

    def forward(self, x: Float[Tensor, "b 1024 t 7 7"]) -> Float[Tensor, "b classes"]:
        """Return the mean over time."""
        return self.conv3d(F.avg_pool3d(x, (2, 7, 7), 1)).mean((2, 3, 4))


@final
class I3D(nn.Module):
    """The network of two streams' first, for RGB and the 400 classes of Kinetics, in eval mode.

    Names of modules are those of the weights that are published with VideoGPT.

    References:
        Carreira and Zisserman 2017, arXiv:1705.07750, figure 3, as the code of Yan et al. 2021,
        arXiv:2104.10157 (VideoGPT), has it.
    """

    def __init__(self) -> None:
        super().__init__()
        spatial, both = ((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2))
        layers: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit(3, 64, 7, 2),
            "MaxPool3d_2a_3x3": MaxPool(*spatial),
            "Conv3d_2b_1x1": Unit(64, 64, 1),
            "Conv3d_2c_3x3": Unit(64, 192, 3),
            "MaxPool3d_3a_3x3": MaxPool(*spatial),
        }
        layers |= {f"Mixed_{name}": Mixed(*MIXED[name]) for name in ("3b", "3c")}
        layers["MaxPool3d_4a_3x3"] = MaxPool(*both)
        layers |= {f"Mixed_{name}": Mixed(*MIXED[name]) for name in ("4b", "4c", "4d", "4e", "4f")}
        layers["MaxPool3d_5a_2x2"] = MaxPool((2, 2, 2), (2, 2, 2))
        layers |= {f"Mixed_{name}": Mixed(*MIXED[name]) for name in ("5b", "5c")}
        for name, layer in {**layers, "logits": Logits()}.items():
            self.add_module(name, layer)
        self.eval()

    def forward(self, clips: Float[Tensor, "b 3 t 224 224"]) -> Float[Tensor, "b classes"]:
        """Return the logits of clips in [-1, 1], of at least 9 frames."""
        for layer in self.children():
            clips = layer(clips)
        return clips
