"""Samples of one, two and three axes as pictures, looked at by their pixels."""

import numpy as np
import torch

from vqtrain.drawing.panels import GAP, flat_ids, in_rows, panel_size, to_panel


def test_of_many_channels_the_first_is_shown_as_gray() -> None:
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None].expand(5, 2, 2)
    assert (to_panel(pixels + 7) == 7).all()
    assert to_panel(pixels[:3]).tolist() == [[[0, 1, 2]] * 2] * 2
    assert to_panel(torch.tensor([-1.0, 0.2, 9.0])[:, None, None]).tolist() == [[[0, 153, 255]]]


def test_a_clip_is_a_strip_of_its_first_its_last_and_frames_between() -> None:
    frames = torch.arange(17, dtype=torch.uint8)[None, :, None, None].expand(3, 17, 4, 6)
    strip = to_panel(frames)
    assert strip.shape == (4, 8 * (6 + GAP), 3)
    assert strip.shape[:2] == panel_size((17, 4, 6))
    assert strip[0, :: 6 + GAP, 0].tolist() == [0, 2, 5, 7, 9, 11, 14, 16]
    assert (strip[:, 6 : 6 + GAP] == 255).all()
    one = to_panel(frames[:, :1])  # a clip of one frame
    assert np.array_equal(one[:, :-GAP], to_panel(frames[:, 0]))


def test_rows_stand_above_each_other_with_few_samples_side_by_side() -> None:
    for count, size in ((8, (3, 5)), (4, (2, 3, 5)), (4, (700,))):
        channels = 1 if len(size) == 1 else 3
        originals = torch.rand(10, channels, *size) * 2 - 1
        rows = in_rows(originals, -originals, rate=8000.0)
        height, width = panel_size(size)
        assert rows.shape == (2 * height, count * width, 3)
        assert np.array_equal(rows[height:, -width:], to_panel(-originals[count - 1], 8000.0))


def test_ids_lie_as_their_panel_does() -> None:
    ids = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)  # two codebooks, three frames of 4 x 5
    first, second = flat_ids(ids, axes=3)
    assert torch.equal(first, torch.cat([*ids[0]], dim=1))
    assert torch.equal(second, torch.cat([*ids[1]], dim=1))
    assert torch.equal(flat_ids(ids[0, 0], axes=1)[0], ids[0, 0])  # four codebooks of a sound
