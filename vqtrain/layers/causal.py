"""Causal convolutions, and what they carry from one piece of a sample to the next.

A causal layer sees nothing later along the first axis of a sample, its time. So a network of such
layers can be run on successive pieces of a sample if each layer keeps the last positions that it
has seen. A ``Stream`` is where it keeps them:

    with Stream():
        latents = [network(piece) for piece in pieces]

Equal mathematics do not make equal bits: for an input of another length the libraries choose other
kernels for convolutions and matrix products, which add in another order, and elementwise functions
compute the last elements of a tensor by other instructions than the rest. Neither a convolution nor
a SiLU of a piece equals that of the whole bit for bit, however it is written. What does not change
is a kernel on inputs of the same shape. So ``in_steps`` runs a network on the same short steps
whether it is given the whole or a piece, and all that its output depends on are those steps.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Before = Literal["zeros", "first"]

_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}


@final
class Stream:
    """A context in which causal layers continue where they ended at the piece before.

    It may be left and entered again, so that streams take turns on one network. Each layer must run
    once for each piece. Networks that torch compiles are run as they are written.
    """

    def __init__(self) -> None:
        self.kept: dict[nn.Module, Tensor] = {}
        self._exit = ExitStack()

    def __enter__(self) -> "Stream":
        """Let layers keep here what they have seen."""
        self._exit.callback(_current.reset, _current.set(self))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled; it takes a second to import
            self._exit.enter_context(torch.compiler.set_stance("force_eager"))
        return self

    def __exit__(self, *error: object) -> None:
        """Let layers begin anew."""
        self._exit.close()


# Of the thread or task that runs the network, so that others may run it at the same time.
_current: ContextVar[Stream | None] = ContextVar("stream", default=None)


def recall(layer: nn.Module) -> Tensor | None:
    """Return what a layer kept of the piece before; None for the first piece, or in no stream."""
    if torch.compiler.is_compiling():
        return None
    stream = _current.get()
    return None if stream is None else stream.kept.get(layer)


def keep(layer: nn.Module, state: Tensor) -> None:
    """Keep what a layer needs for the next piece; in no stream there is none."""
    if torch.compiler.is_compiling():
        return
    stream = _current.get()
    if stream is not None:
        stream.kept[layer] = state.clone()  # without the memory of all that it is a part of


def in_steps(
    network: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c t *rest"],
    lengths: Iterable[int],
    stream: Stream | None = None,
) -> Float[Tensor, "b d t_out *rest_out"]:
    """Run a causal network on successive steps of its input, and join the outputs.

    Args:
        network: What runs on each step.
        x: The input.
        lengths: Of the steps along the first axis of a sample; together as long as ``x``.
        stream: Where earlier steps of the same sample were run; None for none.
    """
    with stream or Stream():
        # Of copies, so that a step lies in memory alike whatever it was cut from.
        found = [
            network(step.clone(memory_format=torch.contiguous_format))
            for step in torch.split(x, list(lengths), dim=2)
        ]
    return found[0] if len(found) == 1 else torch.cat(found, dim=2)


@final
class CausalConv(nn.Module):
    """A convolution of 1 to 3 axes that along the first one sees no later position.

    Along the other axes it is padded by half a kernel of zeros on both sides.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Along each axis; odd along all but the first.
        stride: Along each axis; None for 1.
        dilation: Along the first axis; along the others it is 1.
        first_alone: What a stride along the first axis does there. True: the first position is the
            first output's own, and the next ones share an output among ``stride``, so that 1 + n
            stride positions become 1 + n outputs, as in causal video, where an image is a clip of
            one frame. False: each output has ``stride`` positions of its own, so that n stride
            positions become n outputs, as in sound.
        before: What is before the first position: ``zeros``, or the ``first`` one repeated.
        bias: Whether there is one.

    Attributes:
        conv: The convolution without the padding along the first axis, for weight normalization
            and the like.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sequence[int],
        *,
        stride: Sequence[int] | None = None,
        dilation: int = 1,
        first_alone: bool = True,
        before: Before = "zeros",
        bias: bool = True,
    ) -> None:
        super().__init__()
        others = [1] * (len(kernel_size) - 1)
        self.stride = tuple(stride or (1, *others))
        self.before = before
        span = dilation * (kernel_size[0] - 1) + 1
        self.padding = span - (1 if first_alone else self.stride[0])
        convolution = _CONVOLUTIONS[len(kernel_size)]
        self.conv: nn.Module = convolution(
            in_channels,
            out_channels,
            tuple(kernel_size),  # type: ignore[arg-type]  # as many as the convolution has axes
            stride=self.stride,  # type: ignore[arg-type]
            padding=(0, *(k // 2 for k in kernel_size[1:])),  # type: ignore[arg-type]
            dilation=(dilation, *others),  # type: ignore[arg-type]
            bias=bias,
        )

    def forward(self, x: Float[Tensor, "b c t *rest"]) -> Float[Tensor, "b d t_out *rest_out"]:
        """Convolve; in a ``Stream`` with the last positions of the piece before."""
        past = recall(self)
        if past is not None:
            x = torch.cat([past, x], dim=2)
        elif self.padding and self.before == "first":
            first = x[:, :, :1]
            x = torch.cat([first.expand(-1, -1, self.padding, *first.shape[3:]), x], dim=2)
        elif self.padding:
            x = F.pad(x, (*[0, 0] * (x.ndim - 3), self.padding, 0))
        y = self.conv(x)
        keep(self, x[:, :, y.shape[2] * self.stride[0] :])
        return y


@final
class CausalTransposedConv(nn.Module):
    """A transposed convolution of one axis, each of whose inputs becomes ``stride`` outputs.

    An output depends on its own input and on earlier ones; what would come after the outputs of the
    last input is cut off.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Of the kernel, at least ``stride``.
        stride: Outputs of an input.
        bias: Whether there is one.

    Attributes:
        conv: The transposed convolution, without the cut.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.overlap = -(-kernel_size // stride) - 1  # earlier inputs that an output depends on
        self.conv: nn.Module = nn.ConvTranspose1d(
            in_channels, out_channels, kernel_size, stride=stride, bias=bias
        )

    def forward(self, x: Float[Tensor, "b c t"]) -> Float[Tensor, "b d t_out"]:
        """Convolve; in a ``Stream`` with the last inputs of the piece before."""
        past = recall(self)
        whole = x if past is None else torch.cat([past, x], dim=2)
        known = whole.shape[2] - x.shape[2]
        keep(self, whole[:, :, max(0, whole.shape[2] - self.overlap) :])
        return self.conv(whole)[:, :, known * self.stride : whole.shape[2] * self.stride]
