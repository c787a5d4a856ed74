"""Pictures of single ids, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain import Tokenizer
from vqtrain.data.sources.find import open_samples
from vqtrain.evaluation import code_images
from vqtrain.evaluation.code_images import TILE, alone, draw_codes, framed, heat_row, tile
from vqtrain.evaluation.codes import CodeStatistics
from vqtrain.evaluation.settings import SampleSettings

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
SETTINGS = SampleSettings(
    image_size=16, crop="resize", batch_size=4, num_workers=0, device="cpu", precision="32-true"
)
FSQ = {"kind": "fsq", "arguments": {"size": 16, "levels": [4, 4], "eps": 1e-3}}
GROUPED = {
    "kind": "grouped",
    "arguments": {
        "size": 16,
        "num_codebooks": 2,
        "inner": {"kind": "fsq", "size": None, "levels": [4, 4], "eps": 1e-3},
    },
}


def build(codebook: dict[str, object]) -> Tokenizer:
    encoder = {**NETWORK, "in_channels": 3, "num_downsamplings": 2}
    decoder = {**NETWORK, "out_channels": 3, "num_upsamplings": 2}
    return Tokenizer(
        encoder={"kind": "vqvae", "arguments": encoder},
        codebook=codebook,
        decoder={"kind": "vqvae", "arguments": decoder},
        channels=3,
    ).eval()


def statistics_of(tokenizer: Tokenizer) -> CodeStatistics:
    """Ids 5 and, less often, 3; in a second codebook all are 7."""
    found = CodeStatistics(tokenizer.codebook, torch.device("cpu"))
    token_ids = torch.full((2, tokenizer.codebook.num_codebooks, 4, 4), 7)
    token_ids[:, 0] = torch.tensor([5] * 10 + [3] * 6).view(4, 4)
    blank = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    found.add(token_ids, blank, blank + 1, torch.zeros(2, 4, 4), torch.arange(2))
    return found


def test_an_id_alone_fills_its_grid_and_others_are_the_most_frequent() -> None:
    codes = statistics_of(build(GROUPED))
    ids = alone(codes, codes.counts(), 0, torch.tensor([5, 3]))
    assert ids.shape == (2, 2, 4, 4)
    assert [each.unique().tolist() for each in ids.flatten(0, 1)] == [[5], [7], [3], [7]]
    one = alone(codes, codes.counts(), 1, torch.tensor([2]))
    assert [each.unique().tolist() for each in one[0]] == [[5], [2]]


def test_a_tile_holds_a_token_and_those_around_it() -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[4:8, 8:12] = 255  # the token in row 1, column 2 of 4 x 4
    cut, box = tile(image, (4, 4), 1, 2)
    assert cut.size == (TILE, TILE)
    assert box == (16, 16, 31, 31)
    pixels = np.asarray(cut)
    assert pixels[16:32, 16:32].min() == 255
    assert pixels.sum() == 16 * 16 * 3 * 255
    assert np.asarray(framed(cut, box))[16, 16].tolist() == [255, 255, 255]
    # In a corner, the tile stays inside the image.
    assert tile(image, (4, 4), 0, 3)[1] == (32, 0, 47, 15)
    whole, box = tile(image, (1, 1), 0, 0)
    assert box == (0, 0, TILE - 1, TILE - 1)
    assert np.array_equal(np.asarray(framed(whole, box)), np.asarray(whole))


def test_entropies_go_from_dark_to_light() -> None:
    picture = np.asarray(heat_row([("a", torch.tensor([[0.0, 1.0], [0.5, 0.25]]).double())]))
    half = code_images.HEAT // 2
    places = [(0, 0), (half, half), (half, 0), (0, half)]  # 0, 0.25, 0.5 and 1
    sums = [int(picture[row + 2, column + 6].sum()) for row, column in places]
    assert sums == sorted(sums)
    assert len(set(sums)) == 4


def test_a_picture_shows_ids_and_their_patches(pictures: Path) -> None:
    tokenizer = build(FSQ)
    index = open_samples(str(pictures), role="validation")
    codes, transform = statistics_of(tokenizer), SETTINGS.transform(tokenizer)
    picture = draw_codes(codes, tokenizer, index, transform, SETTINGS)
    assert isinstance(picture, Image.Image)
    # Below two lines: the middle of the picture that the most frequent id decodes to.
    top, left = 2 * code_images.LINE + 2 * code_images.MARGIN, code_images.MARGIN
    shown = np.asarray(picture)[top : top + TILE, left : left + TILE]
    decoded = tokenizer.to_pixels(tokenizer.decode(torch.full((1, 4, 4), 5)))[0]
    expected = decoded[:, 4:16, 4:16].repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert np.array_equal(shown, expected.permute(1, 2, 0).numpy())
    assert picture.width < 1000


def test_there_is_no_picture_of_nothing(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtrain.evaluation.codes.MOST_IDS", 3)
    tokenizer = build(FSQ)
    index = open_samples(str(pictures), role="validation")
    codes, transform = statistics_of(tokenizer), SETTINGS.transform(tokenizer)
    assert draw_codes(codes, tokenizer, index, transform, SETTINGS) is None
