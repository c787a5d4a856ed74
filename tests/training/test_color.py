"""When reconstructions count as gray, and that it is said once."""

import torch

from vqtrain.training.color import ColorHint


def images(red: int, green: int, blue: int) -> torch.Tensor:
    return (
        torch.tensor([red, green, blue], dtype=torch.uint8).reshape(1, 3, 1, 1).repeat(2, 1, 4, 4)
    )


def test_gray_reconstructions_of_colored_images_are_said_once_until_the_color_is_back() -> None:
    hint, colored, gray = ColorHint(), images(200, 100, 50), images(120, 120, 120)
    given = [gray, gray, gray, colored, gray, gray]
    said = [hint.of(each, colored) for each in given]
    assert [text is not None for text in said] == [False, True, False, False, False, True]
    # Y = 0.299 x 200 + 0.587 x 100 + 0.114 x 50 = 124.2: Cb = 74.2 / 1.772, Cr = 75.8 / 1.402.
    assert (
        f"chroma is 0.0 levels, that of the images {(74.2 / 1.772 + 75.8 / 1.402) / 2:.1f}"
        in str(said[1])
    )


def test_gray_images_and_those_of_other_channels_have_no_color_to_lose() -> None:
    for original in (images(90, 90, 90), images(90, 90, 90)[:, :1], images(9, 8, 7)[:0]):
        hint = ColorHint()
        assert [hint.of(original, original) for _ in range(3)] == [None] * 3
