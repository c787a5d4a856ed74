"""Sequences against ids written by hand, and against a writer that takes one id at a time."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtrain.errors import ConfigError
from vqtrain.sequence import SequenceLayout, delay, undelay

# Text 0..255, one codebook 256..265, then begin 266, end 267, row 268, padding 269.
ONE = SequenceLayout(size=10, text_size=256, rows=True)
# Text 0..4, codebooks 5..7 and 8..10, then begin 11, end 12, row 13, padding 14.
INTERLEAVED = SequenceLayout(size=3, num_codebooks=2, text_size=5, rows=True)
DELAYED = SequenceLayout(size=3, num_codebooks=2, text_size=5, rows=True, order="delayed")
# Two codebooks on a grid of 2 x 2.
GRID = torch.tensor([[[[0, 1], [2, 0]], [[2, 2], [1, 0]]]])


def test_the_vocabulary_is_text_then_codebooks_then_special_tokens() -> None:
    assert (ONE.begin_id, ONE.end_id, ONE.row_id, ONE.padding_id) == (266, 267, 268, 269)
    assert ONE.vocab_size == 270
    assert (DELAYED.begin_id, DELAYED.padding_id, DELAYED.vocab_size) == (11, 14, 15)


def test_an_image_is_its_rows_between_begin_and_end() -> None:
    token_ids = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    written = [[266, 257, 258, 259, 268, 260, 261, 262, 268, 267]]
    assert ONE.to_sequence(token_ids).tolist() == written
    assert ONE.to_token_ids(torch.tensor(written)).tolist() == token_ids.tolist()


def test_special_tokens_can_be_left_out() -> None:
    layout = SequenceLayout(size=10, begin=False, end=False)
    token_ids = torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])
    assert layout.to_sequence(token_ids).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert layout.to_token_ids(torch.tensor([[1, 2, 3, 4]]), (2, 2)).tolist() == [[[1, 2], [3, 4]]]


def test_interleaved_codebooks_take_turns_at_each_position() -> None:
    written = [[11, 5, 10, 6, 10, 13, 7, 9, 5, 8, 13, 12]]
    assert INTERLEAVED.to_sequence(GRID).tolist() == written
    assert INTERLEAVED.to_token_ids(torch.tensor(written)).tolist() == GRID.tolist()


def test_delayed_codebooks_come_one_position_later_each() -> None:
    # The streams, with their rows' ends: 5 6 13 7 5 13 14 and 14 10 10 13 9 8 13.
    steps = [5, 14, 6, 10, 13, 10, 7, 13, 5, 9, 13, 8, 14, 13]
    written = [[11, *steps, 12]]
    assert DELAYED.to_sequence(GRID).tolist() == written
    assert DELAYED.to_token_ids(torch.tensor(written)).tolist() == GRID.tolist()


def test_lists_of_ids_stay_lists() -> None:
    layout = SequenceLayout(size=10, text_size=100)
    assert layout.to_sequence(torch.tensor([[1, 2, 3]])).tolist() == [[110, 101, 102, 103, 111]]
    assert layout.to_token_ids(torch.tensor([[110, 101, 111]]), (1,)).tolist() == [[1]]
    two = SequenceLayout(size=10, num_codebooks=2, begin=False, end=False)
    assert two.to_sequence(torch.tensor([[[1, 2], [3, 4]]])).tolist() == [[1, 13, 2, 14]]
    assert two.to_token_ids(torch.tensor([[1, 13]]), (2, 1)).tolist() == [[[1], [3]]]


def test_a_clip_is_its_frames_one_after_the_other() -> None:
    clip = draw_ids(INTERLEAVED, 1, 2, 3, 2, 4, seed=0)  # two codebooks, 3 frames of 2 x 4
    frames = clip.permute(0, 2, 1, 3, 4)
    written = INTERLEAVED.to_sequence(clip)
    bodies = [INTERLEAVED.to_sequence(frame)[0, 1:-1] for frame in frames[0, :, None]]
    assert torch.equal(written[0, 1:-1], torch.cat(bodies))
    assert torch.equal(INTERLEAVED.to_token_ids(written, clip.shape[1:]), clip)


def test_three_delayed_streams_by_hand() -> None:
    token_ids = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]])
    streams = [[[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]]]
    assert delay(token_ids, padding=0).tolist() == streams
    assert undelay(torch.tensor(streams)).tolist() == token_ids.tolist()


def test_streams_shorter_than_their_delay_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 delayed codebooks take at least 3 steps, got 2"):
        undelay(torch.zeros(1, 3, 2, dtype=torch.int64))


def write(layout: SequenceLayout, grid: list[list[list[int]]]) -> list[int]:
    """Write ids [k][h][w] one by one, as the documentation says it."""
    k, height, width = len(grid), len(grid[0]), len(grid[0][0])

    def id_at(codebook: int, row: int, column: int) -> int:
        if column == width:
            return layout.row_id
        return layout.text_size + codebook * layout.size + grid[codebook][row][column]

    columns = width + layout.rows
    body: list[int] = []
    if layout.order == "interleaved":
        for row in range(height):
            body += [id_at(i, row, column) for column in range(width) for i in range(k)]
            body += [layout.row_id] * layout.rows
    else:
        for step in range(height * columns + k - 1):
            for i in range(k):
                inside = 0 <= step - i < height * columns
                where = divmod(step - i, columns)
                body.append(id_at(i, *where) if inside else layout.padding_id)
    return [layout.begin_id] * layout.begin + body + [layout.end_id] * layout.end


LAYOUTS = st.builds(
    SequenceLayout,
    size=st.integers(1, 5),
    num_codebooks=st.integers(1, 4),
    text_size=st.integers(0, 7),
    begin=st.booleans(),
    end=st.booleans(),
    rows=st.booleans(),
    order=st.sampled_from(["interleaved", "delayed"]),
)


def draw_ids(layout: SequenceLayout, *shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(layout.size, shape, generator=generator)


@given(LAYOUTS, st.integers(1, 4), st.integers(1, 5), st.integers(0, 9))
@settings(max_examples=200, deadline=None)
def test_every_layout_writes_what_it_says_and_reads_it_back(
    layout: SequenceLayout, height: int, width: int, seed: int
) -> None:
    grid = draw_ids(layout, 2, layout.num_codebooks, height, width, seed=seed)
    token_ids = grid[:, 0] if layout.num_codebooks == 1 else grid
    sequence = layout.to_sequence(token_ids)
    assert sequence.tolist() == [write(layout, image) for image in grid.tolist()]
    token_shape = None if layout.rows else token_ids.shape[1:]
    torch.testing.assert_close(layout.to_token_ids(sequence, token_shape), token_ids)
    smallest, largest = layout.allowed(token_ids.shape[1:]).T
    assert bool(((smallest <= sequence) & (sequence <= largest)).all())


@given(LAYOUTS, st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_images_among_text_are_found(
    layout: SequenceLayout, sizes: list[tuple[int, int]], data: st.DataObject
) -> None:
    sizes_are_told = layout.rows and layout.end
    if not sizes_are_told:
        sizes = [sizes[0]] * len(sizes) if sizes else []
    parts: list[torch.Tensor] = []
    expected = []
    for height, width in sizes:
        words = [*range(layout.text_size), layout.padding_id]
        parts.append(torch.tensor(data.draw(st.lists(st.sampled_from(words))), dtype=torch.int64))
        token_ids = draw_ids(layout, 1, layout.num_codebooks, height, width, seed=len(parts))
        expected.append(token_ids[:, 0] if layout.num_codebooks == 1 else token_ids)
        parts.append(layout.to_sequence(expected[-1])[0])
    sequence = torch.cat([torch.zeros(0, dtype=torch.int64), *parts])
    shape = expected[0].shape[1:] if expected and not sizes_are_told else None
    found = layout.find(sequence, shape)
    layout.check(sequence, shape)
    assert [image.token_ids.tolist() for image in found] == [ids.tolist() for ids in expected]
    for image, ids in zip(found, expected, strict=True):
        assert sequence[image.start : image.stop].tolist() == layout.to_sequence(ids)[0].tolist()


@given(LAYOUTS, st.integers(1, 3), st.integers(1, 3), st.data())
@settings(max_examples=200, deadline=None)
def test_one_wrong_id_is_found_at_its_position(
    layout: SequenceLayout, height: int, width: int, data: st.DataObject
) -> None:
    grid = draw_ids(layout, 1, layout.num_codebooks, height, width, seed=0)
    token_ids = grid[:, 0] if layout.num_codebooks == 1 else grid
    sequence = layout.to_sequence(token_ids)
    position = data.draw(st.integers(0, sequence.shape[1] - 1))
    smallest, largest = layout.allowed(token_ids.shape[1:])[position].tolist()
    others = [i for i in range(layout.vocab_size) if not smallest <= i <= largest]
    sequence[0, position] = data.draw(st.sampled_from(others))
    with pytest.raises(ConfigError, match=f"^position {position} must be {smallest}"):
        layout.to_token_ids(sequence, token_ids.shape[1:])


WRONG = {
    "a code in place of the beginning": (
        [257, 258, 268, 267],
        r"^position 0 must be 266 \(begin of image\), got 257 \(codebook 0\)$",
    ),
    "text inside": (
        [266, 257, 7, 268, 267],
        r"^position 2 must be 256 to 265 \(codebook 0\), got 7 \(text\)$",
    ),
    "a row too short": (
        [266, 257, 258, 268, 259, 268, 267],
        r"^position 5 must be 256 to 265 \(codebook 0\), got 268 \(end of row\)$",
    ),
    "a row too long": (
        [266, 257, 268, 258, 259, 268, 267],
        r"^position 4 must be 268 \(end of row\), got 259 \(codebook 0\)$",
    ),
    "an empty row": (
        [266, 268, 267],
        r"^position 1 must be 256 to 265 \(codebook 0\), got 268 \(end of row\)$",
    ),
    "no row": ([266, 257, 267], r"^the image from position 0 on has no end of row \(268\), so"),
    "no end": (
        [266, 257, 268],
        r"^the image ends before position 3, which must be 267 \(end of image\)$",
    ),
    "more after the end": (
        [266, 257, 268, 267, 5],
        r"^the image continues at position 4, where it must have ended$",
    ),
    "an id of nothing": (
        [266, 270, 268, 267],
        r"^position 1 must be 256 to 265 \(codebook 0\), got 270, which is outside the vocabulary",
    ),
}


@pytest.mark.parametrize(("ids", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_image_is_refused_by_position(ids: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ONE.to_token_ids(torch.tensor([ids]))


def test_in_a_batch_the_sequence_is_named() -> None:
    sequences = torch.tensor([[266, 257, 268, 267], [266, 257, 268, 266]])
    with pytest.raises(ConfigError, match=r"^sequence 1, position 3 must be 267 \(end of image\)"):
        ONE.to_token_ids(sequences)


def test_an_id_of_another_codebook_is_refused() -> None:
    sequence = INTERLEAVED.to_sequence(GRID)
    sequence[0, 2] = 6
    with pytest.raises(
        ConfigError, match=r"^position 2 must be 8 to 10 \(codebook 1\), got 6 \(codebook 0\)$"
    ):
        INTERLEAVED.to_token_ids(sequence)


def test_an_id_where_a_delayed_codebook_has_none_is_refused() -> None:
    sequence = DELAYED.to_sequence(GRID)
    sequence[0, 2] = 8
    with pytest.raises(ConfigError, match=r"^position 2 must be 14 \(padding\), got 8 \(codebook"):
        DELAYED.to_token_ids(sequence)


WRONG_AMONG_TEXT = {
    "outside the vocabulary": ([72, 270], r"^position 1 is 270, which is outside the vocabulary"),
    "below it": ([72, -1], r"^position 1 is -1, which is outside the vocabulary"),
    "no beginning": (
        [72, 257, 268, 267],
        r"^position 1 must be 266 \(begin of image\), got 257 \(codebook 0\)$",
    ),
    "an end alone": ([72, 267], r"^position 1 must be 266 \(begin of image\), got 267 \(end of"),
    "no end": ([72, 266, 257, 268], r"^the image from position 1 on has no end of image \(267\)$"),
    "text inside": (
        [72, 105, 266, 257, 7, 268, 267],
        r"^position 4 must be 256 to 265 \(codebook 0\), got 7 \(text\)$",
    ),
    "no row": ([72, 266, 257, 267], r"^the image from position 1 on has no end of row \(268\)"),
}


@pytest.mark.parametrize(("ids", "message"), WRONG_AMONG_TEXT.values(), ids=WRONG_AMONG_TEXT)
def test_a_wrong_image_among_text_is_refused_by_position(ids: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ONE.find(torch.tensor(ids))
    with pytest.raises(ConfigError, match=message):
        ONE.check(torch.tensor(ids))


def test_an_image_of_a_given_shape_must_be_whole() -> None:
    layout = SequenceLayout(size=10, text_size=256)
    sequence = torch.tensor([72, 266, 257, 258, 267])
    with pytest.raises(
        ConfigError, match=r"^position 4 must be 256 to 265 \(codebook 0\), got 267 \(end of image"
    ):
        layout.find(sequence, (2, 2))
    with pytest.raises(ConfigError, match=r"^the image ends before position 4, which must be 256"):
        layout.find(sequence[:4], (2, 2))


@pytest.mark.parametrize(
    "layout",
    [
        SequenceLayout(size=10),
        SequenceLayout(size=10, end=False, rows=True),
        SequenceLayout(size=10, begin=False, end=False),
    ],
    ids=["no rows", "no end", "neither"],
)
def test_a_shape_that_cannot_be_seen_must_be_given(layout: SequenceLayout) -> None:
    sequence = layout.to_sequence(torch.tensor([[[1, 2], [3, 4]]]))
    with pytest.raises(ConfigError, match=r"use end=True rows=True, or give token_shape"):
        layout.find(sequence[0])
    if not layout.rows:
        with pytest.raises(ConfigError, match="the shape is unknown: give token_shape"):
            layout.to_token_ids(sequence)


@pytest.mark.parametrize(
    ("k", "shape", "message"),
    [
        (1, (2, 2, 2, 2), r"of 1 codebook must be \[h, w\], .* or \[n\], got \[2, 2, 2, 2\]"),
        (1, (), r"\[t, h, w\] or \[n\], got \[\]"),
        (2, (3, 2, 2), r"of 2 codebooks must be \[2, h, w\], .* or \[2, n\], got \[3, 2, 2\]"),
        (2, (2,), r"must be \[2, h, w\], .* or \[2, n\], got \[2\]"),
        (1, (0, 2), r"got \[0, 2\]"),
    ],
)
def test_ids_of_another_shape_are_refused(k: int, shape: tuple[int, ...], message: str) -> None:
    layout = SequenceLayout(size=10, num_codebooks=k)
    with pytest.raises(ConfigError, match=message):
        layout.to_sequence(torch.zeros(1, *shape, dtype=torch.int64))
    with pytest.raises(ConfigError, match=message):
        layout.allowed(shape)


def test_a_list_of_ids_has_no_rows() -> None:
    with pytest.raises(ConfigError, match=r"ids of shape \[3\] have no rows: use rows=False"):
        ONE.to_sequence(torch.tensor([[1, 2, 3]]))


@pytest.mark.parametrize("wrong", [-1, 10])
def test_ids_that_the_codebook_does_not_have_are_refused(wrong: int) -> None:
    low, high = min(wrong, 0), max(wrong, 0)
    with pytest.raises(ConfigError, match=f"from 0 to 9, got {low} to {high}"):
        ONE.to_sequence(torch.tensor([[[0, wrong]]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"num_codebooks": 0}, "num_codebooks must be at least 1, got 0"),
        ({"text_size": -1}, "text_size must be at least 0, got -1"),
        ({"order": "parallel"}, "order must be one of interleaved, delayed, got 'parallel'"),
    ],
)
def test_impossible_layouts_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SequenceLayout(**{"size": 10, **arguments})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int32, torch.uint64])
def test_ids_of_any_width_give_int64(dtype: torch.dtype) -> None:
    token_ids = torch.tensor([[[[0, 1], [2, 0]], [[2, 2], [1, 0]]]])
    for layout in (INTERLEAVED, DELAYED):
        sequence = layout.to_sequence(token_ids.to(dtype))
        assert sequence.equal(layout.to_sequence(token_ids))
        assert layout.to_token_ids(sequence.to(dtype)).equal(token_ids)
        assert layout.find(sequence[0].to(dtype))[0].token_ids.equal(token_ids)
    # uint8 has no 300.
    assert delay(torch.tensor([[[1], [2]]], dtype=dtype), padding=300).tolist() == [
        [[1, 300], [300, 2]]
    ]
    assert undelay(torch.tensor([[[1, 0], [0, 2]]], dtype=dtype)).dtype == torch.int64


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: ONE.to_sequence(torch.zeros(1, 2, 2)), "must be integers, got torch.float32"),
        (lambda: ONE.to_token_ids(torch.zeros(1, 4)), "must be integers, got torch.float32"),
        (lambda: ONE.find(torch.zeros(4) > 0), "must be integers, got torch.bool"),
        (lambda: ONE.to_token_ids(torch.zeros(4).int()), r"\[b, length\], got \[4\]: use sequence"),
        (lambda: ONE.find(torch.zeros(1, 4).int()), r"one sequence \[length\] at once, got \[1, 4"),
        (lambda: delay(torch.zeros(1, 2, 3), padding=0), "must be integers, got torch.float32"),
        (lambda: delay(torch.zeros(2, 3).int(), padding=0), r"are \[b, k, n\], got \[2, 3\]"),
        (lambda: undelay(torch.zeros(2, 3).int()), r"are \[b, k, n\], got \[2, 3\]"),
    ],
)
def test_what_is_no_ids_is_refused(use: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        use()
