"""The tokenizer as its users call it."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtrain import Tokenizer
from vqtrain.errors import BadSampleError, ConfigError

ENCODER = {
    "kind": "vqvae",
    "arguments": {
        "in_channels": 3,
        "channels": 8,
        "block_channels": 4,
        "num_blocks": 1,
        "num_downsamplings": 2,
    },
}
DECODER = {
    "kind": "vqvae",
    "arguments": {
        "out_channels": 3,
        "channels": 8,
        "block_channels": 4,
        "num_blocks": 1,
        "num_upsamplings": 2,
    },
}
EMA = {
    "kind": "ema",
    "arguments": {
        "size": 16,
        "dim": 4,
        "decay": 0.99,
        "commitment_weight": 0.25,
        "restart_below": 0.03,
    },
}
VQ = {
    "kind": "vq",
    "arguments": {
        "size": 16,
        "dim": 4,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "l2_normalize": True,
    },
}
CODEBOOKS = {"ema": EMA, "vq": VQ}


def make(
    codebook: dict[str, object] = EMA, pixel_range: tuple[float, float] | None = None
) -> Tokenizer:
    tokenizer = Tokenizer(
        encoder=ENCODER,
        codebook=codebook,
        decoder=DECODER,
        channels=3,
        pixel_range=pixel_range,
    )
    tokenizer.codebook.initialize(tokenizer.latents(torch.randn(2, 3, 32, 32)))
    return tokenizer.eval()


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS)
def test_decoding_ids_equals_the_forward_pass(codebook: dict[str, object]) -> None:
    tokenizer = make(codebook)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    token_ids = tokenizer.encode(images)
    assert token_ids.shape == (2, 4, 6)
    assert token_ids.dtype == torch.int64
    expected = tokenizer(images).images.clamp(-1, 1)
    assert torch.equal(tokenizer.decode(token_ids), expected)


def test_it_says_what_people_ask_of_it() -> None:
    tokenizer = make()
    assert (tokenizer.vocab_size, tokenizer.downsampling) == (16, 4)
    assert tokenizer.token_shape(32, 64) == (8, 16)
    assert torch.equal(tokenizer.codebook_vectors, tokenizer.codebook.vectors)


def test_quantizing_latents_is_a_part_of_the_forward_pass() -> None:
    tokenizer = make()
    images = torch.rand(1, 3, 16, 16)
    quantized = tokenizer.quantize(tokenizer.latents(images))
    assert torch.equal(quantized.token_ids[:, 0], tokenizer.encode(images))


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS)
def test_autocast_changes_no_id_of_the_same_latents(codebook: dict[str, object]) -> None:
    tokenizer = make(codebook)
    latents = torch.randn(4, 4, 8, 8)
    plain = tokenizer.quantize(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = tokenizer.quantize(latents)
    assert torch.equal(cast.token_ids, plain.token_ids)
    assert cast.z_q.dtype == cast.loss.dtype == torch.float32


def test_float64_stays_float64() -> None:
    tokenizer = make().double()
    made = tokenizer(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    assert made.images.dtype == made.quantized.loss.dtype == torch.float64


@pytest.mark.parametrize("size", [(15, 16), (16, 18), (0, 16)])
def test_a_size_that_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="multiples of 4"):
        make().encode(torch.zeros(1, 3, *size))


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes images \[b, 3, h, w\], got \[1, 1, 16, 16\]"):
        make().encode(torch.zeros(1, 1, 16, 16))


def test_encoder_and_decoder_of_another_factor_are_refused() -> None:
    decoder = copy.deepcopy(DECODER)
    decoder["arguments"]["num_upsamplings"] = 3  # type: ignore[index]  # plain data
    with pytest.raises(ConfigError, match=r"divides the image size by 4.*multiplies it by 8"):
        Tokenizer(encoder=ENCODER, codebook=EMA, decoder=decoder, channels=3)


def test_preprocess_takes_pictures_and_arrays_and_crops_to_whole_tokens() -> None:
    tokenizer = make()
    array = np.arange(18 * 21 * 3, dtype=np.uint32).reshape(18, 21, 3).astype(np.uint8)
    images = tokenizer.preprocess(Image.fromarray(array))
    assert images.shape == (1, 3, 16, 20)
    assert torch.equal(images, tokenizer.preprocess(array))
    # 18 - 16 = 2 rows too many, one above; 21 - 20 = 1 column too many, none at the left.
    expected = torch.from_numpy(array[1:17, 0:20]).permute(2, 0, 1)[None]
    assert torch.equal(tokenizer.to_pixels(images), expected)


def test_preprocess_turns_gray_into_color() -> None:
    images = make().preprocess(np.full((16, 16), 255, dtype=np.uint8))
    assert images.shape == (1, 3, 16, 16)
    assert images.unique().tolist() == [1.0]


def test_pixels_of_a_range_become_images_and_come_back(tmp_path: Path) -> None:
    make(pixel_range=(-1000.0, 3000.0)).save_pretrained(tmp_path)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.pixel_range == (-1000.0, 3000.0)
    array = np.full((16, 16, 3), 1000, dtype=np.int16)
    array[0, :3, 0] = [-2000, -1000, 3000]
    # 1000 is in the middle; -2000 lies below the range.
    images = tokenizer.preprocess(array)
    assert images[0, 0, 0, :4].tolist() == [-1, -1, 1, 0]
    assert images.unique().tolist() == [-1, 0, 1]
    pixels = tokenizer.to_pixels(images)
    assert pixels.dtype == torch.float32
    assert pixels[0, 0, 0, :4].tolist() == [-1000, -1000, 3000, 1000]
    assert torch.equal(tokenizer.to_images(pixels), images)
    assert tokenizer.to_images(pixels, torch.float64).dtype == torch.float64


def test_preprocess_takes_a_picture_of_16_bits_with_a_range() -> None:
    gray = np.full((16, 16), 65_535, dtype=np.uint16)
    tokenizer = make(pixel_range=(0.0, 65_535.0))
    assert tokenizer.preprocess(Image.fromarray(gray)).unique().tolist() == [1]
    assert torch.equal(tokenizer.preprocess(gray), tokenizer.preprocess(Image.fromarray(gray)))


def test_preprocess_refuses_values_without_a_range() -> None:
    with pytest.raises(BadSampleError, match="float32 have no fixed range"):
        make().preprocess(np.zeros((16, 16), dtype=np.float32))
    with pytest.raises(BadSampleError, match=r"\[16, 16, 5\] does not fit"):
        make().preprocess(np.zeros((16, 16, 5), dtype=np.uint8))


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)])
def test_a_range_that_is_none_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="two numbers, black and white"):
        make(pixel_range=ends)


def test_weights_that_do_not_fit_are_named() -> None:
    tokenizer = make()
    weights = tokenizer.state_dict()
    weights["strange"] = weights.pop("project_in.bias")
    weights["project_in.weight"] = torch.zeros(1, 2)
    with pytest.raises(ConfigError) as caught:
        tokenizer.load_weights(weights)
    for word in ("project_in.bias is missing", "strange is unknown", "[1, 2] instead of"):
        assert word in str(caught.value)


def test_it_goes_to_disk_and_back(tmp_path: Path) -> None:
    tokenizer = make()
    tokenizer.save_pretrained(tmp_path / "saved")
    loaded = Tokenizer.from_pretrained(tmp_path / "saved")
    images = torch.rand(2, 3, 16, 16)
    assert not loaded.training
    assert torch.equal(loaded.encode(images), tokenizer.encode(images))
    assert torch.equal(loaded(images).images, tokenizer(images).images)
    assert loaded.config == tokenizer.config
