"""Causal convolutions against plain ones over padded inputs, and in pieces."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.layers.causal import CausalConv, CausalTransposedConv, Stream, in_steps


def inputs(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize(("before", "first_alone"), [("zeros", True), ("first", False)])
def test_sound_is_padded_before_its_first_position(before: str, first_alone: bool) -> None:
    layer = CausalConv(
        3, 5, [4], stride=[2], dilation=3, before=before, first_alone=first_alone
    ).double()
    x = inputs(2, 3, 21 if first_alone else 20).requires_grad_()
    # The kernel spans 10 positions. The first output sees 1 of the sample, or as many as a stride.
    before_it = 9 if first_alone else 8
    past = torch.zeros(2, 3, before_it).double() if before == "zeros" else x[:, :, [0] * before_it]
    wanted = F.conv1d(
        torch.cat([past, x], 2), layer.conv.weight, layer.conv.bias, stride=2, dilation=3
    )
    assert wanted.shape[2] == (11 if first_alone else 10)
    torch.testing.assert_close(layer(x), wanted)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (layer(x), wanted)]
    torch.testing.assert_close(*gradients)


def test_a_clip_is_padded_before_its_first_frame_and_around_each() -> None:
    layer = CausalConv(3, 4, [3, 3, 1], stride=[2, 2, 1], bias=False).double()
    x = inputs(2, 3, 5, 6, 4)
    wanted = torch.zeros(2, 4, 3, 3, 4).double()
    for frame, row, i, j in torch.cartesian_prod(*map(torch.arange, (3, 3, 3, 3))).tolist():
        t, h = 2 * frame + i - 2, 2 * row + j - 1
        if t >= 0 and 0 <= h < 6:
            kernel = layer.conv.weight[:, :, i, j, 0]
            wanted[:, :, frame, row] += torch.einsum("oc,bcw->bow", kernel, x[:, :, t, h])
    torch.testing.assert_close(layer(x), wanted)


def test_a_transposed_convolution_ends_with_the_outputs_of_the_last_input() -> None:
    layer = CausalTransposedConv(3, 4, 5, stride=2).double()
    x = inputs(2, 3, 6)
    wanted = layer.conv.bias[None, :, None].expand(2, 4, 12).clone()
    for source in range(6):
        for place in range(2 * source, min(2 * source + 5, 12)):
            kernel = layer.conv.weight[:, :, place - 2 * source]
            wanted[:, :, place] += torch.einsum("co,bc->bo", kernel, x[:, :, source])
    torch.testing.assert_close(layer(x), wanted)


def test_pieces_of_any_lengths_continue_each_other() -> None:
    network = torch.nn.Sequential(
        CausalConv(3, 4, [7], first_alone=False, before="first"),
        CausalConv(4, 4, [3], dilation=4),
        CausalConv(4, 5, [4], stride=[2], first_alone=False),
        CausalTransposedConv(5, 3, 7, stride=3),
    ).double()
    x = inputs(2, 3, 24)
    pieces = in_steps(network, x, [2, 6, 14, 2])
    torch.testing.assert_close(pieces, network(x))
    first, second = Stream(), Stream()
    for stream in (first, second):  # take turns
        in_steps(network, x[:, :, :8], [8], stream)
    for stream in (first, second):
        torch.testing.assert_close(in_steps(network, x[:, :, 8:], [16], stream), pieces[:, :, 12:])


def test_an_image_comes_first_and_each_latent_then_has_as_many_frames() -> None:
    network = torch.nn.Sequential(
        CausalConv(3, 4, [3, 3, 3], stride=[2, 2, 2]), CausalConv(4, 4, [3, 3, 3], stride=[2, 1, 1])
    ).double()
    x = inputs(1, 3, 9, 4, 4)
    torch.testing.assert_close(in_steps(network, x, [1, 4, 4]), network(x))
    assert network(x[:, :, :1]).shape == (1, 4, 1, 2, 2)


def test_steps_do_not_depend_on_what_they_are_cut_from() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(CausalConv(3, 33, [5]), torch.nn.SiLU(), CausalConv(33, 7, [3]))
    x = torch.randn(3, 3, 60)
    whole = in_steps(network, x, [4] * 15)
    stream = Stream()
    for start, stop in ((0, 4), (4, 32), (32, 60)):
        piece = in_steps(network, x[:, :, start:stop], [4] * ((stop - start) // 4), stream)
        assert torch.equal(piece, whole[:, :, start:stop])
    assert torch.equal(in_steps(network, x[:, :, :8], [4, 4]), whole[:, :, :8])


def test_a_compiled_network_is_streamed_as_it_is_written() -> None:
    network = torch.nn.Sequential(CausalConv(3, 4, [3])).double()
    x = inputs(1, 3, 8)
    wanted = network(x)
    network.compile(backend=None)  # calling it fails when torch compiles
    torch.testing.assert_close(in_steps(network, x, [4, 4]), wanted)
