"""When a codebook counts as collapsed, and that it is said once."""

import pytest

from vqtrain.training.collapse import CollapseHint


def values(usage: float, perplexity: float) -> dict[str, float]:
    return {"train/codebook/usage": usage, "train/codebook/perplexity": perplexity}


def said_after(lines: int, use: dict[str, float], size: int, tokens: int) -> list[bool]:
    hint = CollapseHint()
    return [hint.of(use, size, tokens) is not None for _ in range(lines)]


def test_a_collapse_of_some_lines_is_said_once_in_plain_words_until_it_is_over() -> None:
    hint = CollapseHint()
    bad, good = values(8 / 512, 5.2), values(0.9, 300.0)
    said = [hint.of(use, 512, 10**6) for use in (bad, bad, good, bad, bad, bad, bad, bad)]
    assert [text is not None for text in said] == [False] * 5 + [True] + [False] * 2
    assert said[5] is not None
    assert "1.6% of 512 codes are used, with a perplexity of 5" in said[5]


@pytest.mark.parametrize(
    ("size", "tokens", "perplexity", "is_said"),
    [
        (65536, 1000, 900.0, False),  # few tokens cannot use many codes
        (65536, 1000, 90.0, True),
        (16, 10**6, 2.0, False),  # 2 of 16 is more than a tenth
        (16, 10**6, 1.5, True),
    ],
)
def test_what_is_possible_depends_on_size_and_tokens(
    size: int, tokens: int, perplexity: float, is_said: bool
) -> None:
    assert any(said_after(3, values(perplexity / size, perplexity), size, tokens)) is is_said


def test_a_continuous_codebook_cannot_collapse() -> None:
    assert not any(said_after(5, {"train/generator/total": 1.0}, 0, 0))
