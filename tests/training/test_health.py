"""When a codebook counts as collapsed, and that it is said once."""

import pytest

from vqtrain.training.health import CollapseHint


def values(usage: float, perplexity: float) -> dict[str, float]:
    return {"train/codebook/usage": usage, "train/codebook/perplexity": perplexity}


def test_a_collapse_is_said_in_plain_words_once_until_it_is_over() -> None:
    hint = CollapseHint()
    bad, good = values(8 / 512, 5.2), values(0.9, 300.0)
    assert hint.of(good, 512, 10**6) is None
    said = hint.of(bad, 512, 10**6)
    assert said is not None
    assert "1.6% of 512 codes are used, so unevenly that 5 would do" in said
    assert hint.of(bad, 512, 10**6) is None
    assert hint.of(good, 512, 10**6) is None
    assert hint.of(bad, 512, 10**6) is not None


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
    said = CollapseHint().of(values(perplexity / size, perplexity), size, tokens)
    assert (said is not None) is is_said


def test_a_continuous_codebook_cannot_collapse() -> None:
    assert CollapseHint().of({"train/generator/total": 1.0}, 0, 0) is None
