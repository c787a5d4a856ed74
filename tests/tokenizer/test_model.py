"""The tokenizer as its users call it."""

import copy
import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from vqtrain import Tokenizer
from vqtrain.errors import BadSampleError, ConfigError, VqtrainError
from vqtrain.tokenizer.preprocessing import to_pixels

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
        "l2_normalize": False,
        "gradient": "straight_through",
        "kmeans_iterations": 0,
        "restart_below": 0.03,
        "sampling_temperature": 0.0,
    },
}
FSQ = {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}}
SIMVQ = {
    "kind": "simvq",
    "arguments": {
        "size": 16,
        "dim": 4,
        "codebook_weight": 1.0,
        "commitment_weight": 0.25,
        "gradient": "rotation",
    },
}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1e-6}}


def inside(inner: dict[str, object]) -> dict[str, object]:
    """The same, as it is written inside of another codebook."""
    arguments = inner["arguments"]
    assert isinstance(arguments, dict)
    return {"kind": inner["kind"], **arguments, "size": None}


RESIDUAL = {
    "kind": "residual",
    "arguments": {
        "size": 16,
        "num_codebooks": 3,
        "shared": False,
        "shrink": 1.0,
        "inner": inside(SIMVQ),
    },
}
MULTISCALE = {
    "kind": "multiscale",
    "arguments": {
        "size": 16,
        "scales": [1, 2, 4],
        "num_convolutions": 2,
        "convolution_share": 0.5,
        "convolution_weight": 1.0,
        "inner": inside(EMA),
    },
}
CODEBOOKS = {"ema": EMA, "fsq": FSQ, "simvq": SIMVQ}


def make(
    codebook: dict[str, object] = EMA,
    pixel_range: tuple[float, float] | None = None,
    side: int = 32,
) -> Tokenizer:
    tokenizer = Tokenizer(
        encoder=ENCODER,
        codebook=codebook,
        decoder=DECODER,
        channels=3,
        pixel_range=pixel_range,
    )
    tokenizer.codebook.initialize(tokenizer.latents(torch.rand(2, 3, side, side) * 2 - 1))
    return tokenizer.eval()


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS)
def test_decoding_ids_equals_the_forward_pass(codebook: dict[str, object]) -> None:
    tokenizer = make(codebook)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    token_ids = tokenizer.encode(images)
    assert token_ids.shape == (2, 4, 6)
    assert token_ids.dtype == torch.int64
    expected = tokenizer(images).samples.clamp(-1, 1)
    assert torch.equal(tokenizer.decode(token_ids), expected)


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS)
def test_reconstructions_are_the_decoded_ids_in_the_tokenizers_precision(
    codebook: dict[str, object],
) -> None:
    tokenizer = make(codebook)
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    found = tokenizer.reconstruct(images)
    assert not found.requires_grad
    assert torch.equal(found, tokenizer.decode(tokenizer.encode(images)))
    wide = tokenizer.double()
    assert (wide.device, wide.dtype) == (torch.device("cpu"), torch.float64)
    assert wide.reconstruct(images).dtype == torch.float64


def test_it_says_what_people_ask_of_it() -> None:
    tokenizer = make()
    assert (tokenizer.vocab_size, tokenizer.downsampling) == (16, (4, 4))
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
    latents = torch.randn(4, tokenizer.codebook.dim, 8, 8)
    plain = tokenizer.quantize(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = tokenizer.quantize(latents)
    assert torch.equal(cast.token_ids, plain.token_ids)
    assert cast.z_q.dtype == cast.loss.dtype == torch.float32


def test_float64_stays_float64() -> None:
    tokenizer = make().double()
    made = tokenizer(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    assert made.samples.dtype == made.quantized.loss.dtype == torch.float64


def test_a_default_type_of_half_precision_leaves_the_codes_in_float32(tmp_path: Path) -> None:
    tokenizer = make(SIMVQ)
    tokenizer.save_pretrained(tmp_path)
    torch.set_default_dtype(torch.bfloat16)
    try:
        loaded = Tokenizer.from_pretrained(tmp_path)
    finally:
        torch.set_default_dtype(torch.float32)
    latents = loaded.latents(torch.rand(1, 3, 16, 16))
    assert latents.dtype == torch.bfloat16
    expected = tokenizer.quantize(latents.float()).token_ids
    assert loaded.quantize(latents).token_ids.equal(expected)


@pytest.mark.parametrize("size", [(15, 16), (16, 18), (0, 16)])
def test_a_size_that_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(
        ConfigError, match="does not divide into tokens of 4 x 4, the nearest sizes that do: "
    ):
        make().encode(torch.zeros(1, 3, *size))


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes samples \[b, 3, \*, \*\], got \[1, 1, 16, 16\]"):
        make().encode(torch.zeros(1, 1, 16, 16))


PIXELS = torch.arange(256).repeat(3).reshape(1, 3, 16, 16)
IMAGES = PIXELS / 127.5 - 1


@pytest.mark.parametrize(
    ("samples", "found"),
    [
        (PIXELS.byte(), "floats in [-1, 1], got torch.uint8"),
        (PIXELS, "floats in [-1, 1], got torch.int64"),
        (PIXELS > 127, "floats in [-1, 1], got torch.bool"),
        (PIXELS.float(), "in [-1, 1], got values from 0 to 255"),
        (PIXELS.half(), "in [-1, 1], got values from 0 to 255"),
        (IMAGES.clone().fill_(torch.nan), "in [-1, 1], got values from nan to nan"),
        (IMAGES.index_fill(3, torch.tensor(3), torch.nan), "got values from nan to nan"),
        (IMAGES.index_fill(3, torch.tensor(3), -torch.inf), "got values from -inf to 1"),
        # Normalized by the mean and the deviation of ImageNet's red.
        ((PIXELS / 255 - 0.485) / 0.229, "got values from -2.1179 to 2.24891"),
    ],
)
def test_what_cannot_be_images_in_the_range_is_refused(samples: Tensor, found: str) -> None:
    tokenizer = make()
    message = re.escape(found) + r".*: make samples by preprocess\(image\)"
    for use in (tokenizer.encode, tokenizer.latents, tokenizer.reconstruct, tokenizer):
        with pytest.raises(ConfigError, match=message):
            use(samples)


def test_images_a_little_beyond_the_range_are_taken_and_steps_of_training_not_compared() -> None:
    tokenizer = make()
    hard = torch.tensor([-1.0, 1.0]).repeat(1, 3, 9, 4)  # stripes, the worst there are
    resized = F.interpolate(hard, (20, 20), mode="bicubic")
    assert resized.abs().max() > 1.1
    for samples in (resized.bfloat16(), resized * 1.2, IMAGES[:0]):
        assert tokenizer.latents(samples).shape[1] == 4
    tokenizer.train()(PIXELS.float())


def test_encoder_and_decoder_of_another_factor_are_refused() -> None:
    decoder = copy.deepcopy(DECODER)
    decoder["arguments"]["num_upsamplings"] = 3  # type: ignore[index]  # plain data
    with pytest.raises(
        ConfigError, match=r"divides the size of a sample by 4 x 4.*multiplies it by 8 x 8"
    ):
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


def test_preprocess_refuses_sizes_that_the_tokenizer_does_not_take() -> None:
    network = {"sample_size": [16, 16], "patch_size": 4, "num_tokens": 5, "dim": 8, "depth": 1}
    network |= {"num_heads": 2, "attention": "self", "positions": "learned"}
    starts = {"in_channels": 3, "transpose": True}
    ends = {"out_channels": 3, "head": "linear", "nested_dropout": "none"}
    tokenizer = Tokenizer(
        encoder={"kind": "latent_query", "arguments": network | starts},
        codebook=FSQ,
        decoder={"kind": "latent_query", "arguments": network | ends},
        channels=3,
    )
    assert tokenizer.preprocess(Image.new("RGB", (19, 16))).shape == (1, 3, 16, 16)
    message = r"takes samples of 16 x 16, got 20 x 16: resize the image first$"
    with pytest.raises(BadSampleError, match=message):
        tokenizer.preprocess(Image.new("RGB", (19, 20)))


MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")
MODES += ("LA", "La", "PA", "RGBX", "RGBa", "I", "I;16", "I;16B", "I;16L", "I;16N")


def test_preprocess_takes_any_layout_in_memory_and_any_mode() -> None:
    tokenizer = make()
    array = np.random.default_rng(0).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    read_only, padded = array.copy(), np.zeros((32, 40, 3), np.uint8)
    read_only.flags.writeable, padded[::2, ::2] = False, array
    flipped = np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1]
    for laid_out in (flipped, np.asfortranarray(array), read_only, padded[::2, ::2]):
        assert torch.equal(tokenizer.preprocess(laid_out), tokenizer.preprocess(array))
    deep = array.astype(np.uint16) * 257
    for laid_out in (deep[:, ::-1], deep[:, ::-1].astype(">u2")):
        assert torch.equal(tokenizer.preprocess(laid_out), tokenizer.preprocess(array[:, ::-1]))
    for mode in MODES:
        assert tokenizer.preprocess(Image.new(mode, (20, 16))).shape == (1, 3, 16, 20), mode
    gray = to_pixels(Image.new("LAB", (20, 16)), axes=2, channels=1, value_range=None)
    assert gray.shape == (1, 16, 20)


def test_preprocess_refuses_in_one_line_what_is_no_picture(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    cut = io.BytesIO((tmp_path / "cut.png").read_bytes()[:500])
    for given, message in (
        ("a.png", "preprocess takes a PIL image or a numpy array, got str"),
        (torch.zeros(3, 16, 16), "got Tensor"),
        (Image.open(cut), "cannot be decoded: "),
        (Image.new("F", (16, 16)), "float32 have no fixed range"),
        (np.zeros((16, 16), bool), "an array of bool is not an image"),
    ):
        with pytest.raises(BadSampleError, match=message):
            to_pixels(given, axes=2, channels=3, value_range=None)


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
    assert torch.equal(loaded(images).samples, tokenizer(images).samples)
    assert loaded.config == tokenizer.config


def test_a_continuous_codebook_makes_no_ids_and_says_what_to_use() -> None:
    tokenizer = make(KL)
    images = torch.rand(2, 3, 16, 16)
    for use in (
        lambda: tokenizer.encode(images),
        lambda: tokenizer.decode(torch.zeros(1, 4, 4, dtype=torch.int64)),
        lambda: tokenizer.codebook_vectors,
    ):
        with pytest.raises(ConfigError, match="codebook=kl is continuous, so there are no token"):
            use()
    z_q = tokenizer.quantize(tokenizer.latents(images)).z_q
    assert z_q.shape == (2, 4, 4, 4)
    assert tokenizer(images).samples.shape == images.shape


def test_scales_make_one_list_of_ids_and_take_one_size_of_images() -> None:
    tokenizer = make(MULTISCALE, side=16)
    images = torch.rand(2, 3, 16, 16)
    token_ids = tokenizer.encode(images)
    assert token_ids.shape == (2, 1 + 4 + 16)
    assert tokenizer.token_shape(16, 16) == (21,)
    assert torch.equal(tokenizer.decode(token_ids), tokenizer(images).samples.clamp(-1, 1))
    with pytest.raises(
        ConfigError, match=r"need a square 2-D grid of 4 x 4, got 8 x 8: use other scales"
    ):
        tokenizer.token_shape(32, 32)
    with pytest.raises(ConfigError, match="need a square 2-D grid of 4 x 4"):
        tokenizer.encode(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("codebook", "shape"),
    [(FSQ, (15, 2)), (SIMVQ, (16, 4)), (RESIDUAL, (3, 16, 4)), (MULTISCALE, (16, 4))],
    ids=["fsq", "simvq", "residual", "multiscale"],
)
def test_the_vectors_of_all_ids_are_those_that_ids_are_decoded_to(
    codebook: dict[str, object], shape: tuple[int, ...]
) -> None:
    tokenizer = make(codebook, side=16)
    vectors = tokenizer.codebook_vectors
    assert vectors.shape == shape
    if len(shape) == 3:
        token_ids = torch.tensor([[[3], [5], [7]]])
        expected = vectors[0, 3] + vectors[1, 5] + vectors[2, 7]
        torch.testing.assert_close(tokenizer.codebook.decode(token_ids)[0, :, 0], expected)


def test_vectors_that_are_too_many_are_not_listed() -> None:
    lfq = {
        "size": 2**40,
        "commitment_weight": 1.0,
        "entropy_weight": 0.0,
        "diversity": 1.0,
        "temperature": 1.0,
        "group_bits": 8,
    }
    tokenizer = make({"kind": "lfq", "arguments": lfq})
    with pytest.raises(ConfigError, match="1099511627776 vectors are too many to list"):
        _ = tokenizer.codebook_vectors
    assert tokenizer.encode(torch.rand(1, 3, 16, 16)).max() < 2**40


@pytest.mark.parametrize(
    ("token_ids", "message"),
    [
        (torch.full((1, 4, 4), 16), "token ids must be from 0 to 15, got 16 to 16"),
        (torch.full((1, 4, 4), -1), "token ids must be from 0 to 15, got -1 to -1"),
        (torch.zeros(1, 4, 4), "token ids must be integers, got torch.float32"),
        (torch.zeros(1, 4, 4) > 0, "token ids must be integers, got torch.bool"),
        (torch.zeros(()).long(), "token ids must be [b, *tokens], got []"),
        (
            torch.zeros(4, 4).long(),
            "[b, *tokens], got [4, 4]: the decoder takes latents on a grid of 2 axes",
        ),
        (torch.zeros(1, 1, 4, 4).long(), "must be [b, *tokens], got [1, 1, 4, 4]: the decoder"),
    ],
)
def test_what_is_no_token_ids_is_refused(token_ids: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(SIMVQ).decode(token_ids)


def test_ids_of_another_shape_are_refused_with_that_of_the_codebook() -> None:
    for codebook, shape in ((RESIDUAL, "[b, 3, *tokens]"), (MULTISCALE, "[b, 21]")):
        tokenizer = make(codebook, side=16)
        for wrong in ((2, 4, 4), (2, 20), (2, 4, 4, 4)):
            with pytest.raises(ConfigError, match=re.escape(f"must be {shape}, got {list(wrong)}")):
                tokenizer.decode(torch.zeros(wrong, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.uint16, torch.uint64])
def test_ids_of_any_width_are_decoded(dtype: torch.dtype) -> None:
    tokenizer = make(RESIDUAL)
    token_ids = tokenizer.encode(torch.rand(2, 3, 16, 24) * 2 - 1)
    assert tokenizer.decode(token_ids.to(dtype), batch_size=1).equal(
        tokenizer.decode(token_ids, batch_size=1)
    )
    # And of the first depths alone.
    z_q = tokenizer.codebook.decode(token_ids[:, :2])
    assert tokenizer.decode(token_ids[:, :2]).equal(tokenizer.decode_latents(z_q).clamp(-1, 1))


@pytest.mark.parametrize("codebook", CODEBOOKS.values(), ids=CODEBOOKS)
def test_latents_that_are_not_finite_are_an_error_and_never_ids(
    codebook: dict[str, object],
) -> None:
    tokenizer = make(codebook)
    images = torch.rand(1, 3, 16, 16)
    tokenizer.project_in.bias.data[0] = torch.nan
    for use in (tokenizer.encode, lambda images: tokenizer.quantize(tokenizer.latents(images))):
        with pytest.raises(VqtrainError, match="the codebook was given latents that are not fin"):
            use(images)
    # In training and validation no number comes of it.
    for mode in (True, False):
        made = tokenizer.train(mode)(images)
        assert not (made.quantized.loss.isfinite() and made.samples.isfinite().all())


@pytest.mark.parametrize("codebook", [SIMVQ, RESIDUAL, FSQ], ids=["simvq", "residual", "fsq"])
def test_a_folded_tokenizer_gives_the_same_ids_and_images(codebook: dict[str, object]) -> None:
    tokenizer = make(codebook)
    folded = tokenizer.folded()
    kind = folded.specification["codebook"]["kind"]
    assert kind == ("vq" if codebook is SIMVQ else codebook["kind"])
    assert not any("frozen" in name for name in folded.state_dict())
    images = torch.rand(2, 3, 16, 24) * 2 - 1
    token_ids = tokenizer.encode(images)
    assert torch.equal(folded.encode(images), token_ids)
    assert torch.equal(folded.decode(token_ids), tokenizer.decode(token_ids))


def test_batches_give_what_all_images_at_once_give() -> None:
    tokenizer = make()
    images = torch.rand(5, 3, 16, 24) * 2 - 1
    token_ids = tokenizer.encode(images)
    assert tokenizer.encode(images, batch_size=2).equal(token_ids)
    torch.testing.assert_close(
        tokenizer.decode(token_ids, batch_size=2), tokenizer.decode(token_ids)
    )


def test_tiles_give_whole_grids_of_large_images() -> None:
    tokenizer = make()
    images = torch.rand(1, 3, 64, 40) * 2 - 1
    token_ids = tokenizer.encode(images, tile=32)
    whole = tokenizer.encode(images)
    assert token_ids.shape == whole.shape
    # A latent sees 13 px to each side, and what two tiles share begins at row 24 of the image.
    assert token_ids[0, :2, :2].equal(whole[0, :2, :2])
    assert tokenizer.decode(whole, tile=32).shape == images.shape
    assert tokenizer.encode(images, tile=64).equal(whole)


@pytest.mark.parametrize("tile", [0, -4, 28, 34])
def test_tiles_that_do_not_divide_into_tokens_are_refused(tile: int) -> None:
    tokenizer = make()
    with pytest.raises(
        ConfigError, match=f"tile must be a multiple of 4 px and at least 32, got {tile}"
    ):
        tokenizer.encode(torch.zeros(1, 3, 32, 32), tile=tile)
    with pytest.raises(
        ConfigError, match=f"tile must be a multiple of 4 px and at least 32, got {tile}"
    ):
        tokenizer.decode(torch.zeros(1, 8, 8, dtype=torch.int64), tile=tile)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        make().encode(torch.zeros(1, 3, 32, 32), batch_size=0)


def test_images_of_another_type_are_taken_and_ids_are_where_the_images_were() -> None:
    tokenizer = make().double()
    images = torch.rand(1, 3, 16, 16)
    assert tokenizer.encode(images).equal(tokenizer.encode(images.double()))


COMPILED = """
import sys
import torch
from vqtrain import Tokenizer

tokenizer = Tokenizer.from_pretrained(sys.argv[1])
images = torch.rand(2, 3, 16, 24) * 2 - 1
options = {"fullgraph": True, "backend": "aot_eager"}  # another backend changes no graph
token_ids = torch.compile(tokenizer.encode, **options)(images)
assert token_ids.equal(tokenizer.encode(images))
made = torch.compile(tokenizer.decode, **options)(token_ids)
torch.testing.assert_close(made, tokenizer.decode(token_ids))
"""


@pytest.mark.slow
def test_it_compiles_into_whole_graphs(
    tmp_path: Path, start_python: Callable[..., "subprocess.Popen[str]"]
) -> None:
    make().save_pretrained(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(COMPILED)
    with start_python(script, tmp_path, stderr=subprocess.PIPE) as process:
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
