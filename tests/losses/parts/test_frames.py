"""Frames of clips, as loss terms and discriminators of images see them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain import distributed
from vqtrain.build import build_part
from vqtrain.discriminators.patchgan import PatchGAN
from vqtrain.discriminators.patchgan3d import PatchGAN3D
from vqtrain.errors import ConfigError
from vqtrain.losses.base import LossTerm
from vqtrain.losses.parts.frames import Frames, for_samples, seen_size

SIZES = {"sounds": (64,), "images": (16, 16), "clips": (5, 16, 16)}


class OfImages(LossTerm):
    """A loss that is not linear in its images, of two axes alone."""

    axes = 2

    def forward(self, reconstructions: Tensor, samples: Tensor) -> Tensor:
        """Compare the deviations of images."""
        assert reconstructions.ndim == 4
        return (reconstructions.std((1, 2, 3)) - samples.std((1, 2, 3))).square().mean()


TERM = OfImages()


def clips(count: int) -> Tensor:
    """Clips of 7 frames that hold 100 times their own number, plus that of the frame."""
    numbers = 100.0 * torch.arange(count)[:, None] + torch.arange(7)
    return numbers[:, None, :, None, None].expand(-1, 3, -1, 4, 4)


def drawn(frames: Frames, batch: Tensor) -> Tensor:
    """The numbers of the frames that a part of images sees."""
    (found,) = frames.of(batch)(TERM, [batch])
    assert torch.equal(found, found[:, :1, :1, :1].expand_as(found))
    return found[:, 0, 0, 0]


def test_frames_are_drawn_anew_in_each_step_and_alike_for_all_parts() -> None:
    frames, batch = Frames(3), clips(4)
    seen = []
    for step in range(40):
        frames.begin_step(step, 5)
        draw = frames.of(batch)
        numbers, again = (draw(TERM, [batch, batch])[i][:, 0, 0, 0] for i in (0, 1))
        assert torch.equal(numbers, again)
        own = numbers.reshape(4, 3)
        assert torch.equal(own // 100, torch.arange(4.0)[:, None].expand(4, 3))
        assert bool((own.diff() > 0).all())  # of each clip different ones, in their order
        seen.append(own % 100)
    # Of each clip others, in each step others, and all equally often: 3 of 7, in 160 draws.
    assert len({tuple(own.flatten().tolist()) for own in seen}) == 40
    assert not torch.equal(seen[0][0], seen[0][1])
    shares = torch.stack(seen).flatten().long().bincount(minlength=7) / 160
    assert shares.sub(3 / 7).abs().max() < 0.12  # three standard deviations
    frames.begin_step(7, 5)
    assert torch.equal(drawn(frames, batch).reshape(4, 3) % 100, seen[7])


def test_all_frames_are_seen_where_none_are_drawn() -> None:
    batch = clips(2)
    for count in (None, 7, 9):
        assert torch.equal(drawn(Frames(count), batch), batch[:, 0, :, 0, 0].flatten())
    image = torch.rand(2, 3, 4, 4)
    assert Frames(1).of(image)(TERM, [image])[0] is image  # of images nothing changes
    three = PatchGAN3D(in_channels=3, channels=2, num_layers=1, norm="none")
    assert Frames(1).of(batch)(three, [batch])[0] is batch


def test_ranks_and_batches_draw_what_one_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, frames = clips(8), Frames(2)
    frames.begin_step(3, 1)
    expected = drawn(frames, whole)
    found = []
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        frames.begin_step(3, 1)
        # The batches of a rank are every second pair of clips.
        found += [drawn(frames, whole[first : first + 2]) for first in (2 * rank, 4 + 2 * rank)]
    assert torch.equal(torch.cat([found[0], found[2], found[1], found[3]]), expected)


def test_gradients_are_those_of_the_frames_alone() -> None:
    torch.manual_seed(0)
    made, given = (torch.rand(2, 3, 4, 8, 8, requires_grad=True) for _ in range(2))
    frames = Frames(1)
    frames.begin_step(1, 1)
    pair = frames.of(made)(TERM, [made, given])
    TERM(*pair).backward()
    assert made.grad is not None
    touched = made.grad.abs().sum((1, 3, 4)) > 0
    assert touched.sum(1).tolist() == [1, 1]
    own = made.detach().transpose(1, 2)[touched].requires_grad_()
    TERM(own, given.detach().transpose(1, 2)[touched]).backward()
    assert own.grad is not None
    torch.testing.assert_close(made.grad.transpose(1, 2)[touched], own.grad)


@pytest.mark.parametrize(
    ("part", "group", "refused"),
    [
        ({"kind": "gram", "arguments": {}}, "loss", {"sounds": "takes images, and samples here"}),
        (
            {"kind": "patchgan3d", "arguments": {"channels": 2, "num_layers": 1, "norm": "none"}},
            "discriminator",
            {"sounds": "takes clips, and samples here", "images": "takes clips, and samples here"},
        ),
        ({"kind": "l1", "arguments": {}}, "loss", {}),
    ],
)
def test_what_samples_do_not_have_is_refused(
    part: dict[str, Any], group: str, refused: dict[str, str]
) -> None:
    for noun, size in SIZES.items():
        context = {"in_channels": 3, "sample_size": size}
        if noun in refused:
            with pytest.raises(ConfigError) as raised:
                for_samples(group, part, context, where="here")
            assert str(raised.value) == f"here={part['kind']} {refused[noun]} are {noun}"
        else:
            for_samples(group, part, context, where="here")
    assert seen_size(PatchGAN, (5, 16, 32), where="here") == (16, 32)


def test_a_discriminator_of_clips_has_the_keys_of_one_of_images() -> None:
    group = {"channels": 2, "num_layers": 1, "norm": "group"}
    keys = []
    for noun in ("images", "clips"):
        context = {"in_channels": 3, "sample_size": SIZES[noun]}
        part = for_samples(
            "discriminator", {"kind": "patchgan", "arguments": group}, context, where="here"
        )
        built = build_part("discriminator", part)
        assert isinstance(built, PatchGAN)
        keys.append(list(built.state_dict()))
    assert keys[0] == keys[1]
