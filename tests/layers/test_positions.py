"""Position codes, by hand: what a row, a column and another grid do."""

import math

import pytest
import torch
from torch import Tensor

from vqtrain.errors import ConfigError
from vqtrain.layers.positions import Rope, Table, build_table, rotate

GRID = (3, 5)
CLIP = (2, 3, 4)  # frames, rows and columns


def table(kind: str, dim: int = 8) -> Table:
    torch.manual_seed(0)
    return build_table(kind, grid=GRID, dim=dim).double()


@pytest.mark.parametrize("kind", ["learned", "learned_2d", "sincos_2d"])
def test_codes_are_laid_out_row_by_row_and_interpolated_elsewhere(kind: str) -> None:
    positions = table(kind)
    own = positions.added(GRID)
    assert own.shape == (15, 8)
    assert torch.equal(own.reshape(3, 5, 8), positions.table().permute(1, 2, 0))
    wider = positions.added((6, 10)).reshape(6, 10, 8)
    want = torch.nn.functional.interpolate(
        positions.table()[None], size=(6, 10), mode="bicubic", antialias=True, align_corners=False
    )
    torch.testing.assert_close(wider, want[0].permute(1, 2, 0))


def test_sines_have_the_order_of_mae() -> None:
    codes = table("sincos_2d").added(GRID)
    row, column = 2, 3
    want = [math.sin(column), math.sin(column * 0.01), math.cos(column), math.cos(column * 0.01)]
    want += [math.sin(row), math.sin(row * 0.01), math.cos(row), math.cos(row * 0.01)]
    torch.testing.assert_close(codes[row * 5 + column], torch.tensor(want, dtype=torch.float64))


def test_rows_and_columns_are_added_up() -> None:
    positions = table("learned_2d")
    codes = positions.added(GRID).reshape(3, 5, 8)
    # Between two columns of a row, the rows make no difference.
    torch.testing.assert_close(codes[0, 1] - codes[0, 3], codes[2, 1] - codes[2, 3])
    torch.testing.assert_close(codes[0, 1] - codes[2, 1], codes[0, 4] - codes[2, 4])


def scores(q: Tensor, k: Tensor, grid: tuple[int, int]) -> Tensor:
    """The scores of one query and one key at all pairs of places, [rows, columns] of each."""
    rotation = Rope("rope_2d", GRID, 8).double().rotation(grid)
    n = grid[0] * grid[1]
    turned = (rotate(x.expand(1, 1, n, 8), rotation)[0, 0] for x in (q, k))
    a, b = turned
    return (a @ b.T).reshape(*grid, *grid)


def test_rotations_see_differences_of_rows_and_columns() -> None:
    q, k = torch.randn(2, 8, dtype=torch.float64)
    found = scores(q, k, GRID)
    torch.testing.assert_close(found[0, 0, 1, 2], found[1, 2, 2, 4])  # a row down, two columns on
    torch.testing.assert_close(found[1, 3, 1, 3], q @ k)  # the same place
    assert abs(found[0, 0, 1, 2] - found[0, 0, 2, 1]) > 1e-3


def test_a_rotation_by_hand() -> None:
    x = torch.zeros(1, 1, 15, 8, dtype=torch.float64)
    x[..., [0, 4]] = 1.0
    row, column = 2, 3
    turned = rotate(x, Rope("rope_2d", GRID, 8).double().rotation(GRID))[0, 0, row * 5 + column]
    want = [math.cos(row), math.sin(row), 0, 0, math.cos(column), math.sin(column), 0, 0]
    torch.testing.assert_close(turned, torch.tensor(want, dtype=torch.float64))


def test_another_grid_is_stretched_over_the_first() -> None:
    # Places of 6 rows over 3: -0.25, 0.25, 0.75 and so on.
    wider = Rope("rope_2d", GRID, 8).double().rotation((6, 5))[1].reshape(6, 5, 4)
    want = torch.tensor([-0.25, 0.25, 0.75, 1.25, 1.75, 2.25], dtype=torch.float64).sin()
    torch.testing.assert_close(wider[:, 0, 0], want)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_table("sincos_2d", grid=GRID, dim=6), "a dim that 4 divides, got 6"),
        (lambda: Rope("rope_2d", GRID, 6), "a head_dim that 4 divides, got 6"),
        (lambda: Rope("rope_2d", [3], 8), r"a grid of 2 axes, got \[3\]"),
        (lambda: build_table("sincos_2d", grid=CLIP, dim=16), r"a grid of 2 axes, got \[2, 3, 4\]"),
        (lambda: Rope("rope_3d", GRID, 16), r"a grid of 3 axes, got \[3, 5\]"),
        (lambda: Rope("rope_3d", CLIP, 24), "a head_dim that 16 divides, got 24"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]  # one of the above


def test_positions_of_clips_are_of_frame_row_and_column() -> None:
    sines = build_table("sincos_3d", grid=CLIP, dim=16).double().added(CLIP)
    turns = Rope("rope_3d", CLIP, 16).double().rotation(CLIP)
    at = 0
    for frame in range(2):
        for row in range(3):
            for column in range(4):
                # 16 channels are 8 pairs: 2 of the frame, 3 of the row and 3 of the column.
                angles = {
                    place: [number * 10_000 ** (-i / count) for i in range(count)]
                    for place, number, count in (
                        ("frame", frame, 2),
                        ("row", row, 3),
                        ("column", column, 3),
                    )
                }
                want = [
                    function(angle)
                    for place in ("frame", "column", "row")
                    for function in (math.sin, math.cos)
                    for angle in angles[place]
                ]
                torch.testing.assert_close(sines[at], torch.tensor(want, dtype=torch.float64))
                turned = [*angles["frame"], *angles["row"], *angles["column"]]
                want = [[math.cos(a) for a in turned], [math.sin(a) for a in turned]]
                torch.testing.assert_close(turns[:, at], torch.tensor(want, dtype=torch.float64))
                at += 1


def test_positions_of_clips_are_interpolated_too() -> None:
    for kind in ("learned", "sincos_3d"):
        positions = build_table(kind, grid=CLIP, dim=16)
        assert positions.added((4, 6, 8)).shape == (4 * 6 * 8, 16)
    # Frames 0 and 1 stretched over 4: -0.25, 0.25, 0.75 and 1.25.
    stretched = Rope("rope_3d", CLIP, 16).double().rotation((4, 3, 4))[1].reshape(4, 3, 4, 8)
    want = torch.tensor([-0.25, 0.25, 0.75, 1.25], dtype=torch.float64).sin()
    torch.testing.assert_close(stretched[:, 0, 0, 0], want)
