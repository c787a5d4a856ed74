"""Both ways between our tokenizers and diffusers' own class, with random weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import VQModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqtrain.codebooks.parts.table import PLAIN
from vqtrain.errors import CheckpointError, ConfigError, VqtrainError
from vqtrain.formats import diffusers as ours
from vqtrain.formats.diffusers import Diffusers
from vqtrain.formats.parts import diffusers as parts
from vqtrain.formats.parts.diffusers import their_name
from vqtrain.tokenizer.model import Tokenizer

WEIGHTS = "diffusion_pytorch_model.safetensors"
VQ = {**PLAIN, "size": 16, "dim": 4, "codebook_weight": 1.0, "commitment_weight": 0.25}
VQ["gradient"] = "straight_through"
EMA = {"size": 16, "dim": 4, "decay": 0.95, "commitment_weight": 0.25, "l2_normalize": False}
EMA |= {"gradient": "rotation", "kmeans_iterations": 0, "restart_below": 0.1}
EMA |= {"sampling_temperature": 0.0}
SIMVQ = {"size": 16, "dim": 4, "codebook_weight": 1.0, "commitment_weight": 0.25}
SIMVQ["gradient"] = "straight_through"
FSQ = {"size": 16, "levels": None, "eps": 1e-3}


def disturb(module: torch.nn.Module) -> None:
    """Make all weights differ from each other, norms' among them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def make_model(**settings: Any) -> VQModel:
    """A model of three levels, with attention in other places of the two networks."""
    model = VQModel(
        **{
            "block_out_channels": (32, 64, 32),
            "down_block_types": (
                "DownEncoderBlock2D",
                "AttnDownEncoderBlock2D",
                "DownEncoderBlock2D",
            ),
            "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
            "layers_per_block": 2,
            "latent_channels": 6,
            "vq_embed_dim": 4,
            "num_vq_embeddings": 16,
            "sample_size": 24,
            **settings,
        }
    ).eval()
    disturb(model)
    with torch.no_grad():
        model.quantize.embedding.weight.normal_()
    return model


def make_tokenizer(
    kind: str = "vq", encoder: Any = None, decoder: Any = None, **codebook: Any
) -> Tokenizer:
    """A tokenizer of two levels with codes that are as large as its latents."""
    common = {"channels": 32, "multipliers": [1, 2], "num_blocks": 1, "latent_channels": 6}
    common |= {"dropout": 0.0}
    given = {"vq": VQ, "ema": EMA, "simvq": SIMVQ, "fsq": FSQ}[kind]
    tokenizer = Tokenizer(
        encoder={
            "kind": "cnn",
            "arguments": {"in_channels": 3, **common, "attention_factors": [2], **(encoder or {})},
        },
        codebook={"kind": kind, "arguments": {**given, **codebook}},
        decoder={
            "kind": "cnn",
            "arguments": {"out_channels": 3, **common, "attention_factors": [], **(decoder or {})},
        },
        channels=3,
    ).eval()
    disturb(tokenizer)
    if kind != "fsq":
        tokenizer.codebook.initialize(tokenizer.latents(make_images()[0]).detach())
    return tokenizer


def make_images() -> list[Tensor]:
    return [torch.rand(2, 3, 16, 16) * 2 - 1, torch.rand(1, 3, 8, 24) * 2 - 1]


def ids_of(model: VQModel, images: Tensor) -> Tensor:
    latents = model.encode(images).latents
    token_ids = model.quantize(latents)[2][2]
    return token_ids.view(len(images), *latents.shape[2:])


def folder(path: Path) -> Path:
    path.mkdir()
    return path


@torch.no_grad()
def test_a_converted_model_gives_the_ids_and_pixels_of_the_original(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    tokenizer = Diffusers().convert(tmp_path)
    for images in make_images():
        latents = model.encode(images).latents
        torch.testing.assert_close(tokenizer.latents(images), latents)
        token_ids = tokenizer.encode(images)
        assert torch.equal(token_ids, ids_of(model, images))
        assert len(token_ids.unique()) > 3
        theirs = model.decode(latents).sample.clamp(-1, 1)
        torch.testing.assert_close(tokenizer.decode(token_ids), theirs, rtol=0, atol=1e-4)
    assert tokenizer.downsampling == (4, 4)
    assert tokenizer.training_summary == {"image_size": 24}


def test_a_converted_model_goes_on_with_the_loss_of_the_original(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    tokenizer = Diffusers().convert(tmp_path).train()
    z = torch.randn(2, 4, 3, 5)
    results = []
    for codebook, table in (
        (lambda latents: tokenizer.codebook(latents).loss, tokenizer.codebook.vectors),
        (lambda latents: model.quantize(latents)[1], model.quantize.embedding.weight),
    ):
        latents = z.clone().requires_grad_()
        loss = codebook(latents)
        results.append((loss, *torch.autograd.grad(loss, (latents, table))))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("old_names", [False, True], ids=["new names", "old names"])
def test_weights_from_before_safetensors_are_read(tmp_path: Path, old_names: bool) -> None:
    model = make_model()
    model.save_pretrained(tmp_path / "new")
    model.save_config(tmp_path / "old")
    weights = model.state_dict()
    if old_names:
        renamed = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value."}
        renamed[".to_out.0."] = ".proj_attn."
        for new, old in renamed.items():
            weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
        assert set(weights) != set(model.state_dict())
    torch.save(weights, tmp_path / "old/diffusion_pytorch_model.bin")
    expected = Diffusers().convert(tmp_path / "new").state_dict()
    for name, tensor in Diffusers().convert(tmp_path / "old").state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    make_model().half().save_pretrained(tmp_path)
    tokenizer = Diffusers().convert(tmp_path)
    assert {tensor.dtype for tensor in tokenizer.state_dict().values()} == {torch.float32}


def test_settings_that_config_json_leaves_out_are_those_of_the_class(tmp_path: Path) -> None:
    model = VQModel()
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "VQModel"}')
    tokenizer = Diffusers().convert(tmp_path)
    images = make_images()[0]
    with torch.no_grad():
        torch.testing.assert_close(tokenizer.latents(images), model.eval().encode(images).latents)
    assert tokenizer.training_summary == {}


def test_a_size_that_does_not_divide_into_tokens_is_forgotten(tmp_path: Path) -> None:
    make_model(sample_size=26).save_pretrained(tmp_path)
    assert Diffusers().convert(tmp_path).training_summary == {}


@pytest.mark.parametrize(
    ("kind", "codebook"),
    [("vq", {}), ("ema", {}), ("simvq", {}), ("vq", {"l2_normalize": True})],
    ids=["vq", "ema", "simvq", "normalized"],
)
@torch.no_grad()
def test_an_exported_tokenizer_is_the_same_in_diffusers(
    kind: str, codebook: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(kind, **codebook)
    agreement = Diffusers().export(tokenizer, tmp_path, images=make_images()[:1])
    assert (agreement.images, agreement.ids, agreement.other_ids) == (2, 2 * 8 * 8, 0)
    assert agreement.pixels <= 1e-4
    model = VQModel.from_pretrained(tmp_path)
    for images in make_images():
        token_ids = tokenizer.encode(images)
        assert len(token_ids.unique()) > 3
        assert torch.equal(ids_of(model, images), token_ids)
        theirs = model(images).sample.clamp(-1, 1)
        torch.testing.assert_close(tokenizer.decode(token_ids), theirs, rtol=0, atol=1e-4)
        # As the settings say, ids can be decoded as they are.
        shape = (*token_ids.shape, 4)
        from_ids = model.decode(token_ids, force_not_quantize=True, shape=shape).sample
        torch.testing.assert_close(from_ids.clamp(-1, 1), theirs, rtol=0, atol=1e-4)


def test_weights_come_back_as_they_went(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.training_summary = {"image_size": 16}
    Diffusers().export(tokenizer, tmp_path, images=make_images()[:1])
    back = Diffusers().convert(tmp_path)
    assert back.training_summary == {"image_size": 16}
    for part in ("encoder", "decoder"):
        assert back.specification[part] == tokenizer.specification[part]
    mine = tokenizer.state_dict()
    assert list(back.state_dict()) == list(mine)
    for name, tensor in back.state_dict().items():
        if name != "codebook.average_counts":  # of the training alone
            assert torch.equal(tensor, mine[name]), name


def test_settings_and_weights_come_back_as_they_went(tmp_path: Path) -> None:
    model = make_model(lookup_from_codebook=True)
    model.save_pretrained(tmp_path / "theirs")
    tokenizer = Diffusers().convert(tmp_path / "theirs")
    Diffusers().export(tokenizer, folder(tmp_path / "ours"), images=[torch.rand(1, 3, 16, 24)])
    back = VQModel.from_pretrained(tmp_path / "ours")
    for name, value in model.config.items():
        if not name.startswith("_"):
            there = back.config[name]
            assert there == (list(value) if isinstance(value, tuple) else value), name
    for name, tensor in back.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_an_export_that_is_not_the_same_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = (*parts.RENAMED, (r"\.to_q\.", ".to_q_."), (r"\.to_k\.", ".to_q."))
    monkeypatch.setattr(parts, "RENAMED", (*swapped, (r"\.to_q_\.", ".to_k.")))
    with pytest.raises(VqtrainError, match=r"not agree with PyTorch|not the same tokenizer"):
        Diffusers().export(make_tokenizer(), tmp_path, images=make_images()[:1])


VQVAE = {"in_channels": 3, "channels": 8, "block_channels": 4, "num_blocks": 1}


def with_another_encoder() -> Tokenizer:
    tokenizer = make_tokenizer()
    return Tokenizer(
        encoder={"kind": "vqvae", "arguments": {**VQVAE, "num_downsamplings": 1}},
        codebook=tokenizer.specification["codebook"],
        decoder=tokenizer.specification["decoder"],
        channels=3,
    )


REFUSED = {
    "encoder": (with_another_encoder, r"has encoder=cnn decoder=cnn, not encoder=vqvae$"),
    "codebook": (lambda: make_tokenizer("fsq"), r"codebook=fsq does not$"),
    "other widths": (
        lambda: make_tokenizer(decoder={"channels": 64}),
        r"one channels for both networks, but encoder.channels is 32 and decoder.channels is 64$",
    ),
    "other blocks": (
        lambda: make_tokenizer(encoder={"num_blocks": 2}),
        r"encoder.num_blocks is 2 and decoder.num_blocks is 1$",
    ),
    "a wide first level": (
        lambda: make_tokenizer(encoder={"multipliers": [2, 2]}, decoder={"multipliers": [2, 2]}),
        r"multipliers must begin with 1, got \[2, 2\]$",
    ),
    "a latent convolution": (
        lambda: make_tokenizer(decoder={"latent_convolution": True}),
        "latent_convolution must be false in encoder and decoder$",
    ),
    "groups": (
        lambda: make_tokenizer(encoder={"channels": 8}, decoder={"channels": 8}),
        r"levels of \[8, 16\] channels have \[8, 16\]",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_diffusers_cannot_have_is_refused(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Diffusers().export(make(), tmp_path, images=make_images()[:1])
    assert list(tmp_path.iterdir()) == []


def test_without_diffusers_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="own class: pip install diffusers"):
        Diffusers().export(make_tokenizer(), tmp_path, images=make_images()[:1])
    assert list(tmp_path.iterdir()) == []


CONV = "encoder.down_blocks.1.resnets.0.conv1.weight"
TO_Q = "decoder.mid_block.attentions.0.to_q.weight"


def renamed(weights: dict[str, Tensor]) -> None:
    weights["encoder.down_blocks.1.resnets.0.conv3.weight"] = weights.pop(CONV)


def missing(weights: dict[str, Tensor]) -> None:
    del weights[TO_Q]


def misshaped(weights: dict[str, Tensor]) -> None:
    weights["quantize.embedding.weight"] = torch.zeros(17, 4)


def another(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if name.startswith("decoder.")]:
        del weights[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            renamed,
            r"down_blocks.1.resnets.0.conv1: weight is missing; .*0.conv3: weight is unknown$",
        ),
        (missing, r": decoder.mid_block.attentions.0.to_q: weight is missing$"),
        (misshaped, r": quantize.embedding: weight is \[17, 4\] instead of \[16, 4\]$"),
        (another, r": decoder.conv_in: weight is missing, bias is missing; .*; and in \d\d more$"),
    ],
)
def test_weights_that_differ_are_named_by_module(change: Any, message: str, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    change(weights)
    save_file(weights, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match=message):
        Diffusers().convert(tmp_path)


DOWN, UP = ["DownEncoderBlock2D"] * 3, ["UpDecoderBlock2D"] * 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm_type": "spatial"}, r"norm_type is 'spatial', but .* can only be group$"),
        ({"act_fn": "mish"}, r"act_fn is 'mish', but .* can only be silu or swish$"),
        ({"norm_num_groups": 16}, r"norm_num_groups is 16, but .* can only be 32$"),
        ({"mid_block_add_attention": False}, r"mid_block_add_attention is False, but .* be true$"),
        ({"out_channels": 1}, r"out_channels is 1, but .* be 3, as in_channels$"),
        (
            {"block_out_channels": [64, 96, 96]},
            r"block_out_channels is \[64, 96, 96\], but .* mult",
        ),
        ({"block_out_channels": []}, r"block_out_channels is \[\], but"),
        ({"block_out_channels": [0, 0, 0]}, r"block_out_channels is \[0, 0, 0\], but"),
        (
            {"down_block_types": [*DOWN[:2], "SkipDownBlock2D"]},
            r"down_block_types is \[.*'SkipDownBlock2D'\], but .* be 3 of DownEncoderBlock2D and",
        ),
        ({"down_block_types": DOWN[:2]}, r"down_block_types is .* be 3 of DownEncoderBlock2D"),
        ({"up_block_types": [*UP[:2], "UpBlock2D"]}, r"up_block_types is .* be 3 of UpDecoderB"),
        ({"block_out_channels": [2**40] * 3}, r"overflow"),
        ({"layers_per_block": 10**12}, r"is 10{12}, more than there are weights"),
        ({"layers_per_block": 0}, r"num_blocks must be at least 1"),
        ({"layers_per_block": "2"}, r"layers_per_block must be a whole number, got '2'"),
        ({"num_experts": 2}, r"config.json: unknown key 'num_experts'"),
        ({"num_vq_embeddings": -1}, r"size must be at least 1, got -1"),
    ],
)
def test_settings_that_our_networks_cannot_have_are_refused(
    settings: dict[str, object], message: str, tmp_path: Path
) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **settings}))
    with pytest.raises(ConfigError, match=f"^cannot convert {tmp_path}: .*{message}"):
        Diffusers().convert(tmp_path)


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"num_vq_embeddings": 2**40}, r"weight is \[16, 4\] instead of \[1099511627776, 4\]$"),
        ({"block_out_channels": [2**26] * 3}, r"and in \d+ more$"),
    ],
)
def test_what_is_not_in_the_file_is_not_made(
    claim: dict[str, object], message: str, tmp_path: Path
) -> None:
    make_model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **claim}))
    with pytest.raises(CheckpointError, match=message):
        Diffusers().convert(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot read .*config.json: .*No such file"),
        ("{", r"cannot read .*config.json: "),
        ("[]", r"cannot read .*config.json: its _class_name is None, not 'VQModel'$"),
        ('{"_class_name": "AutoencoderKL"}', r"its _class_name is 'AutoencoderKL', not 'VQModel'$"),
        ('{"_class_name": "VQModel"}', rf"no weights in .*: looked for {WEIGHTS} and "),
    ],
)
def test_a_directory_that_holds_no_model_is_refused(
    text: str | None, message: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        Diffusers().convert(tmp_path)


def test_names_by_hand() -> None:
    names = {
        "project_in.weight": "quant_conv.weight",
        "codebook.vectors": "quantize.embedding.weight",
        "encoder.down.0.block.1.norm1.bias": "encoder.down_blocks.0.resnets.1.norm1.bias",
        "encoder.down.0.downsample.conv.bias": "encoder.down_blocks.0.downsamplers.0.conv.bias",
        "encoder.mid.attn_1.norm.bias": "encoder.mid_block.attentions.0.group_norm.bias",
        "encoder.mid.block_2.conv1.bias": "encoder.mid_block.resnets.1.conv1.bias",
        "encoder.norm_out.bias": "encoder.conv_norm_out.bias",
        "decoder.up.0.block.0.nin_shortcut.b": "decoder.up_blocks.2.resnets.0.conv_shortcut.b",
        "decoder.up.2.upsample.conv.bias": "decoder.up_blocks.0.upsamplers.0.conv.bias",
        "decoder.up.1.attn.2.proj_out.bias": "decoder.up_blocks.1.attentions.2.to_out.0.bias",
    }
    assert {name: their_name(name, levels=3) for name in names} == names
