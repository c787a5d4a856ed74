"""The form of ids: what fits together, and which ids are neighbors, by hand."""

import pytest

from vqtrain.errors import ConfigError
from vqtrain.generation.form import TokenForm
from vqtrain.tokenizer.model import Tokenizer

NETWORK = {"channels": 4, "block_channels": 4, "num_blocks": 0}
FSQ = {"kind": "fsq", "arguments": {"size": None, "levels": [4, 4], "eps": 1e-3}}


def tokenizer(codebook: dict[str, object]) -> Tokenizer:
    return Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {"in_channels": 3, "num_downsamplings": 2} | NETWORK,
        },
        codebook=codebook,
        decoder={"kind": "vqvae", "arguments": {"out_channels": 3, "num_upsamplings": 2} | NETWORK},
        channels=3,
    )


def test_the_form_is_that_of_the_ids_of_a_tokenizer() -> None:
    form = TokenForm.of(tokenizer(FSQ), (8, 12))
    assert form == TokenForm(size=16, num_codebooks=1, token_shape=(2, 3))
    assert form.num_tokens == 6
    continuous = tokenizer({"kind": "kl", "arguments": {"size": None, "dim": 2, "kl_weight": 1.0}})
    with pytest.raises(ConfigError, match="codebook=kl is continuous"):
        TokenForm.of(continuous, (8, 12))


def test_contexts_are_left_upper_and_the_level_before() -> None:
    # 0 1 2
    # 3 4 5
    plane = TokenForm(size=4, num_codebooks=1, token_shape=(2, 3))
    assert plane.contexts().tolist() == [[-1, 0, 1, -1, 3, 4], [-1, -1, -1, 0, 1, 2]]
    # A list has one axis; the second codebook (3 4 5) is below the first (0 1 2).
    streams = TokenForm(size=4, num_codebooks=2, token_shape=(2, 3))
    assert streams.contexts().tolist() == [[-1, 0, 1, -1, 3, 4], [-1, -1, -1, 0, 1, 2]]
    # Grids of 2 x 2 (0 to 3) and 3 x 3 (4 to 12): row 1 of the finer one begins in row 0 below it.
    scales = TokenForm(size=4, num_codebooks=1, token_shape=(13,), grids=((2, 2), (3, 3)))
    assert scales.contexts().tolist() == [
        [-1, 0, -1, 2, -1, 4, 5, -1, 7, 8, -1, 10, 11],
        [-1, -1, 0, 1, -1, -1, -1, 4, 5, 6, 7, 8, 9],
        [-1, -1, -1, -1, 0, 0, 1, 0, 0, 1, 2, 2, 3],
    ]
    clip = TokenForm(size=4, num_codebooks=1, token_shape=(2, 1, 2))
    assert clip.contexts().tolist() == [[-1, 0, -1, 2], [-1, -1, -1, -1], [-1, -1, 0, 1]]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"size": 0}, "size must be at least 1, got 0"),
        ({"token_shape": (2, -1)}, "token_shape must be a list, each item at least 1"),
        ({"num_codebooks": 2, "token_shape": (3, 2, 2)}, r"2 codebooks are \[k, \*grid\], got"),
        ({"grids": ((1, 1), (2, 2))}, r"one list, got \[2, 2\]"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, object], words: str) -> None:
    right: dict[str, object] = {"size": 4, "num_codebooks": 1, "token_shape": (2, 2)}
    with pytest.raises(ConfigError, match=words):
        TokenForm(**{**right, **wrong})  # type: ignore[arg-type]  # some are wrong
