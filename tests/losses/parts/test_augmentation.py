"""What the discriminator sees, against DiffAugment's definition and a blur by hand."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.functional import adjust_contrast

from vqtrain.losses.parts.augmentation import (
    augment,
    blurred,
    covered,
    offsets,
    scaled_about,
    shifted,
)


def test_translation_moves_pixels_and_leaves_zeros() -> None:
    image = torch.arange(1.0, 13).reshape(1, 1, 3, 4)
    moved = shifted(image, torch.tensor([1]), torch.tensor([-2]))
    assert moved[0, 0].tolist() == [[0, 0, 0, 0], [3, 4, 0, 0], [7, 8, 0, 0]]


def test_translations_are_whole_and_equally_likely() -> None:
    draws = torch.arange(0, 1, 1 / 9).double() + 1e-6
    # An eighth of 32 is 4: nine offsets.
    assert offsets(draws, 32).tolist() == list(range(-4, 5))


def test_a_cutout_has_its_size_and_may_reach_over_the_edge() -> None:
    # Of 10 rows 0.4 are four; their middle is one of 11 places, from 0 to 10.
    draws = torch.arange(11).double() / 11 + 1e-6
    rows = [inside.nonzero().flatten().tolist() for inside in covered(draws, 10, 0.4)]
    assert rows[0] == [0, 1]
    assert rows[2] == [0, 1, 2, 3]
    assert rows[6] == [4, 5, 6, 7]
    assert rows[10] == [8, 9]


def test_colors_are_scaled_about_their_mean() -> None:
    image = torch.rand(1, 1, 5, 5)
    about = scaled_about(image, image.mean((1, 2, 3), keepdim=True), torch.tensor(0.7))
    torch.testing.assert_close(about, adjust_contrast(image, 0.7))


def changed(seed: int, probability: float, images: Tensor, places: range) -> Tensor:
    return augment(images, probability=probability, cutout=0.2, seed=seed, places=places)


def test_with_probability_0_nothing_changes_and_with_1_everything() -> None:
    images = torch.rand(2, 3, 32, 32) + 1
    torch.testing.assert_close(changed(0, 0.0, images, range(2)), images, rtol=0, atol=0)
    found = changed(0, 1.0, images, range(2))
    # The cutout alone covers at least a quarter of a square of 6 x 6, and most places a whole one.
    assert ((found == 0).all(1).sum((1, 2)) >= 9).all()
    assert (found != images).float().mean() > 0.99


def test_each_of_the_three_happens_by_its_probability_to_all_images_together() -> None:
    images = torch.ones(2, 1, 16, 16)
    counts = torch.zeros(2)
    for seed in range(400):
        found = changed(seed, 0.25, images, range(2))
        is_bright = (found != 0) & (found != 1)
        both = is_bright.flatten(1).any(1)
        assert both[0] == both[1]
        counts += torch.stack([both[0].float(), (found == 0).any().float()])
    share = counts / 400
    # Color: 0.25. Zeros come from a cutout, 0.25, or from a translation by more than 0 px.
    assert share[0].item() == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))
    assert 0.25 < share[1].item() < 1 - 0.75**2 + 0.1


def test_what_happens_to_an_image_depends_on_its_place_alone() -> None:
    images = torch.rand(4, 3, 16, 16)
    joined = changed(3, 1.0, images, range(4))
    torch.testing.assert_close(changed(3, 1.0, images[2:], range(2, 4)), joined[2:])
    assert not torch.equal(changed(4, 1.0, images, range(4)), joined)
    same = changed(3, 1.0, images[:1].repeat(2, 1, 1, 1), range(2))
    assert not torch.equal(same[0], same[1])


def test_the_gradient_is_that_of_the_definition() -> None:
    images = torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: changed(0, 1.0, x, range(2)), (images,))


def test_the_blur_by_its_formula() -> None:
    image = torch.zeros(1, 1, 17, 17, dtype=torch.float64)
    image[0, 0, 8, 8] = 1
    scale = 0.5 * math.sqrt(17 / 2)  # 1.46, so the radius is 4
    line = torch.tensor([2 ** -((x / scale) ** 2) for x in range(-4, 5)], dtype=torch.float64)
    line /= line.sum()
    expected = torch.zeros(17, 17, dtype=torch.float64)
    expected[4:13, 4:13] = line[:, None] * line
    torch.testing.assert_close(blurred(image, 0.5)[0, 0], expected)
    even = torch.full((1, 3, 4, 6), 0.3)
    torch.testing.assert_close(blurred(even, 1.0), even)
    assert blurred(image, 0.0) is image
