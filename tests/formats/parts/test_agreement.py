"""What an export may differ by, and what it may not."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.errors import VqtrainError
from vqtrain.formats.parts.agreement import (
    Tolerance,
    compare,
    near_ties,
)


@pytest.fixture
def tokenizer(make_tokenizer: Callable[..., Tokenizer]) -> Tokenizer:
    return make_tokenizer("ema")


@pytest.fixture
def images() -> list[Tensor]:
    return [torch.rand(2, 3, 16, 24) * 2 - 1, torch.rand(1, 3, 8, 8) * 2 - 1]


def with_another_id(tokenizer: Tokenizer) -> Callable[[Tensor], Tensor]:
    """Encode, but for one id of each batch."""

    def encode(batch: Tensor) -> Tensor:
        token_ids = tokenizer.encode(batch)
        token_ids[0, 0, 0] = (token_ids[0, 0, 0] + 1) % tokenizer.vocab_size
        return token_ids

    return encode


def test_the_same_agrees_exactly(tokenizer: Tokenizer, images: list[Tensor]) -> None:
    agreement = compare(
        tokenizer,
        images,
        encode=tokenizer.encode,
        decode=tokenizer.decode,
        tolerance=Tolerance(ids_frac=0.0, pixels=0.0),
    )
    # 2 images of 4 x 6 ids and 1 of 2 x 2.
    assert str(agreement) == "3 images: 52 of 52 ids are equal, pixels differ by at most 0.0e+00"


def test_another_id_that_is_no_near_tie_is_refused(
    tokenizer: Tokenizer, images: list[Tensor]
) -> None:
    with pytest.raises(VqtrainError, match="other ids at 1 of 48 places, which are no near ties"):
        compare(
            tokenizer,
            images,
            encode=with_another_id(tokenizer),
            decode=tokenizer.decode,
            tolerance=Tolerance(),
        )


def test_other_ids_are_counted_where_ties_do_not_matter(
    tokenizer: Tokenizer, images: list[Tensor]
) -> None:
    encode = with_another_id(tokenizer)
    any_id = Tolerance(ids_frac=0.04, near=None)  # of 52 that is 2.08, so 3
    agreement = compare(tokenizer, images, encode=encode, decode=tokenizer.decode, tolerance=any_id)
    assert agreement.other_ids == 2
    few = Tolerance(ids_frac=0.01, near=None)  # 0.52, so 1
    with pytest.raises(VqtrainError, match=r"50 of 52 ids are equal.*allowed are 1 other ids"):
        compare(tokenizer, images, encode=encode, decode=tokenizer.decode, tolerance=few)


@pytest.mark.parametrize("wrong", [0.01, torch.nan])
def test_other_pixels_are_refused_in_whichever_batch(
    tokenizer: Tokenizer, images: list[Tensor], wrong: float
) -> None:
    for batch in range(2):
        shapes = [tokenizer.token_shape(*each.shape[2:]) for each in images]

        def decode(token_ids: Tensor, shape: tuple[int, ...] = shapes[batch]) -> Tensor:
            is_wrong = token_ids.shape[1:] == shape
            return tokenizer.decode(token_ids) + (wrong if is_wrong else 0.0)

        with pytest.raises(VqtrainError, match="does not agree with PyTorch"):
            compare(
                tokenizer, images, encode=tokenizer.encode, decode=decode, tolerance=Tolerance()
            )


def test_a_near_tie_is_one_whose_latent_lies_close_to_a_border(
    make_tokenizer: Callable[..., Tokenizer],
) -> None:
    # The borders of lfq are at 0: of three positions, one channel of the second is close to it.
    tokenizer = make_tokenizer("lfq")
    latents = torch.ones(1, 4, 1, 3)
    latents[0, 2, 0, 1] = 1e-5
    tokenizer.latents = lambda _, **__: latents.clone()
    images = torch.zeros(1, 3, 4, 12)
    token_ids = tokenizer.encode(images)
    assert near_ties(tokenizer, images, token_ids, 1e-4).tolist() == [[[False, True, False]]]
    assert not near_ties(tokenizer, images, token_ids, 1e-7).any()


def test_a_tokenizer_without_ids_is_compared_by_its_images(
    make_tokenizer: Callable[..., Tokenizer], images: list[Tensor]
) -> None:
    tokenizer = make_tokenizer("kl")
    exactly = Tolerance(pixels=0.0)
    options = {"encode": None, "tolerance": exactly}
    agreement = compare(tokenizer, images, decode=lambda batch: tokenizer(batch).samples, **options)
    assert str(agreement) == "3 images: pixels differ by at most 0.0e+00"
    with pytest.raises(VqtrainError, match="does not agree"):
        compare(tokenizer, images, decode=lambda batch: batch, **options)
