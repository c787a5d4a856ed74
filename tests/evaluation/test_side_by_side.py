"""Pictures of panels, looked at by their pixels."""

import numpy as np
import torch

from vqtrain.evaluation.side_by_side import (
    CAPTION_HEIGHT,
    LEAST_WIDTH,
    MARGIN,
    ids_panel,
    panels_of,
    side_by_side,
)


def test_panels_stand_beside_each_other_over_their_captions() -> None:
    red, blue = np.zeros((2, 8, 12, 3), dtype=np.uint8)
    red[..., 0] = blue[..., 2] = 255
    whole = np.asarray(side_by_side([(red, "a"), (blue, "b")]))
    assert whole.shape == (8 + MARGIN + CAPTION_HEIGHT, 2 * (12 + MARGIN) + MARGIN, 3)
    assert (whole[MARGIN : MARGIN + 8, MARGIN : MARGIN + 12] == [255, 0, 0]).all()
    left = 2 * MARGIN + 12
    assert (whole[MARGIN : MARGIN + 8, left : left + 12] == [0, 0, 255]).all()
    captions = whole[MARGIN + 8 :]
    assert (captions[:, MARGIN : MARGIN + 12] < 128).any()
    assert (captions[:, left : left + 12] < 128).any()


def test_panels_below_each_other_are_cut_apart_again() -> None:
    panels = list(np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8))
    for is_stacked in (False, True):
        picture = side_by_side([(panel, "x") for panel in panels], is_stacked=is_stacked)
        whole = np.asarray(picture)
        found = panels_of(whole, (8, 12), is_stacked=is_stacked)
        assert np.array_equal(found, panels)
        assert panels_of(whole, (7, 12), is_stacked=is_stacked) is None
        assert panels_of(whole, (8, 12), is_stacked=not is_stacked) is None
    assert picture.size == (LEAST_WIDTH, 3 * (8 + MARGIN + CAPTION_HEIGHT))


def test_an_id_has_one_color_and_another_id_another() -> None:
    grid = torch.tensor([[0, 1], [2, 0]])
    panel = ids_panel([grid], 8, 8)
    colors = panel[1::4, 1::4]
    assert (panel.reshape(2, 4, 2, 4, 3) == colors[:, None, :, None]).all()
    assert (colors[0, 0] == colors[1, 1]).all()
    assert len({tuple(color) for color in colors.reshape(4, 3).tolist()}) == 3
    # The same in another picture, and for the 1,024 that follow each other all differ but few.
    many = ids_panel([torch.arange(1024).reshape(32, 32)], 32, 32).reshape(-1, 3)
    assert (many[2] == colors[1, 0]).all()
    assert len({tuple(color) for color in many.tolist()}) > 900


def test_several_codebooks_or_scales_are_several_grids() -> None:
    panel = ids_panel([torch.tensor([[0]]), torch.tensor([[1, 2], [3, 4]])], 32, 32)
    assert panel.shape == (32, 32, 3)
    # One beside the other: the first has one color, the second four.
    assert len({tuple(color) for color in panel[:, :14].reshape(-1, 3).tolist()}) == 1
    assert len({tuple(color) for color in panel[:, 18:].reshape(-1, 3).tolist()}) == 4
