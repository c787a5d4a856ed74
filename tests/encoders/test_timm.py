"""The encoder of timm against timm itself, and where its weights come from."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from vqtrain import Tokenizer
from vqtrain.app.parts.build import build_module
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.inherit import begin
from vqtrain.app.parts.settings import Settings
from vqtrain.build import build
from vqtrain.cli import main
from vqtrain.encoders import contract
from vqtrain.encoders.timm import TimmEncoder
from vqtrain.errors import ConfigError, WeightsError
from vqtrain.layers import vision

MODEL = "test_vit.r160_in1k"
SIZE = (32, 48)
PARTS = ["encoder=timm", f"encoder.model={MODEL}", "decoder=vit", "decoder.patch_size=16"]
PARTS += ["decoder.dim=8", "decoder.depth=1", "decoder.num_heads=2", "codebook=fsq"]
PARTS += ["codebook.size=16", "data.image_size=32", "trainer.accelerator=cpu"]


def encoder(**changes: Any) -> TimmEncoder:
    arguments: dict[str, Any] = {"in_channels": 3, "sample_size": SIZE, "model": MODEL}
    return TimmEncoder(**{**arguments, "pretrained": True, "frozen": False, **changes})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub/models--timm--test_vit.r160_in1k"


@pytest.fixture
def published() -> torch.nn.Module:
    """The whole model, with its head and the positions of 160 px, as it is published."""
    return timm.create_model(MODEL).eval()


def cached(hub: Path, model: torch.nn.Module) -> Path:
    """Put weights where the hub's own library keeps them."""
    (hub / "refs").mkdir(parents=True)
    (hub / "refs/main").write_text("c0ffee")
    file = hub / "snapshots/c0ffee/model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(model.state_dict(), file)
    return file


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])


@pytest.mark.parametrize(
    ("name", "side", "prefix", "mean", "std"),
    [
        (MODEL, 16, 1, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ("deit_tiny_distilled_patch16_224", 16, 2, *IMAGENET),
        ("eva02_tiny_patch14_224", 14, 1, *CLIP),  # positions by rotation, too
    ],
)
@torch.no_grad()
def test_latents_are_the_patch_tokens_of_timm(
    name: str, side: int, prefix: int, mean: list[float], std: list[float]
) -> None:
    size = (2 * side, 3 * side)
    made = encoder(model=name, sample_size=size).eval()
    assert made.downsampling == (side, side)
    theirs = timm.create_model(name, img_size=size).eval()
    given = theirs.state_dict()
    made.model.load_state_dict({key: given[key] for key in made.model.state_dict()})
    pixels = torch.rand(2, 3, *size)
    normalized = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    tokens = theirs.forward_features(normalized)
    latents = made(pixels * 2 - 1)
    assert latents.shape == (2, made.out_channels, 2, 3)
    for row in range(2):
        for column in range(3):
            expected = tokens[:, prefix + 3 * row + column]
            torch.testing.assert_close(latents[:, :, row, column], expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_latent_is_of_its_patch() -> None:
    made = encoder().eval()
    made.model.blocks = torch.nn.Sequential()  # no patch sees another
    images = torch.zeros(1, 3, *SIZE)
    changed = images.clone()
    changed[:, :, 16:, 32:] = 1  # second row, third column
    moved = (made(changed) - made(images)).abs().amax(dim=(0, 1)) > 0
    assert moved.tolist() == [[False, False, False], [False, False, True]]


@torch.no_grad()
def test_other_sizes_and_gray_images() -> None:
    made = encoder().eval()
    assert made(torch.zeros(1, 3, 64, 16)).shape[2:] == made.grid((64, 16)) == (4, 1)
    gray = encoder(in_channels=1).eval()
    gray.load_state_dict(made.state_dict())
    images = torch.rand(1, 1, *SIZE) * 2 - 1
    assert torch.equal(gray(images), made(images.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_published_weights_come_from_the_cache_or_a_file(
    suffix: str, hub: Path, tmp_path: Path, published: torch.nn.Module
) -> None:
    given = None
    if suffix == "pth":
        given = str(tmp_path / "mine.pth")
        torch.save({"state_dict": published.state_dict()}, given)
    else:
        cached(hub, published)
    made = encoder(sample_size=(160, 160)).eval()
    state = torch.get_rng_state()
    said = made.load_pretrained(given)
    assert torch.equal(torch.get_rng_state(), state)
    assert said is not None
    assert MODEL in said
    assert ("mine.pth" if given else "snapshots") in said
    pixels = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        expected = published.forward_features((pixels - 0.5) / 0.5)[:, 1:]
        latents = made(pixels * 2 - 1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(latents, expected, rtol=0, atol=1e-6)
    # Positions of another grid are those that timm makes of the file.
    small = encoder(sample_size=(64, 64))
    small.load_pretrained(given)
    resampled = timm.layers.resample_abs_pos_embed(published.pos_embed, [4, 4])
    torch.testing.assert_close(small.model.pos_embed, resampled)
    assert encoder(pretrained=False).load_pretrained("nowhere") is None


def test_weights_that_are_missing_or_do_not_fit_are_one_line(hub: Path, tmp_path: Path) -> None:
    url = f"https://huggingface.co/timm/{MODEL}/resolve/main/model.safetensors"
    with pytest.raises(
        WeightsError, match=rf"^cannot download model.safetensors from {url} to {hub}: .*"
    ) as missing:
        encoder().load_pretrained(None)
    assert str(missing.value).endswith("; to use another copy, set weights.encoder=PATH")
    with pytest.raises(WeightsError, match=r"weights.encoder must be a file, and there is none"):
        encoder().load_pretrained(str(tmp_path / "nothing.pth"))
    file = tmp_path / "weights.pth"
    for content in ({"no": torch.zeros(1)}, None):
        torch.save(content, file) if content else file.write_bytes(b"no")
        with pytest.raises(
            WeightsError, match=rf"^cannot load {file} into {MODEL} of timm: "
        ) as error:
            encoder().load_pretrained(str(file))
        assert "\n" not in str(error.value)
    nowhere = encoder(model="vit_small_patch16_18x2_224")
    with pytest.raises(WeightsError, match=r"timm knows no weights of vit_small_patch16_18x2_224"):
        nowhere.load_pretrained(None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vit_smal_patch14_dinov2"}, "did you mean 'vit_small_patch14_dinov2'"),
        ({"model": "qqq"}, r'got \'qqq\'; timm.list_models\("vit\*"\) lists some'),
        ({"model": "hf-hub:timm/test_vit"}, "model must be the name of a model of timm"),
        ({"model": "resnet10t"}, "must be a vision transformer over patches, got 'resnet10t'"),
        ({"model": "test_efficientnet"}, "must be a vision transformer over patches"),
        ({"in_channels": 4}, "data.channels must be 1 or 3 for this encoder, got 4"),
    ],
)
def test_what_it_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoder(**changes)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "find_spec", lambda _: None)
    arguments = {"in_channels": 3, "sample_size": SIZE, "model": MODEL}
    with pytest.raises(
        ConfigError, match=r'encoder.model needs timm: pip install "vqtrain\[timm\]"'
    ):
        build("encoder", "timm", {**arguments, "pretrained": False, "frozen": True})


def test_frozen_it_has_no_gradients_and_stays_in_eval_mode() -> None:
    made = encoder(frozen=True)
    contract.check(made, sample_size=SIZE)
    made.train()
    assert made.training
    assert not any(module.training for module in made.model.modules())
    assert not any(parameter.requires_grad for parameter in made.parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_a_step_moves_the_encoder_unless_it_is_frozen(frozen: bool) -> None:
    word = f"encoder.frozen={str(frozen).lower()}"
    config = compose("train", read_command_line([*PARTS, "encoder.pretrained=false", word]))
    module = build_module(config, Settings.of(config))
    module.configure_optimizers()
    before = {name: value.clone() for name, value in module.named_parameters()}
    for step in range(2):
        samples = torch.rand(2, 3, 32, 32) * 2 - 1
        output = module.tokenizer(samples)
        module.objective(samples, output, module.layers, step, is_last=True).total.backward()
        module.optim.step(step + 1, lambda each: each.step())
    moved = {name for name, value in module.named_parameters() if not value.equal(before[name])}
    encoder = {name for name in before if name.startswith("tokenizer.encoder.")}
    assert moved == (before.keys() - encoder if frozen else before.keys())


@pytest.mark.slow
def test_a_run_starts_from_published_weights_and_its_tokenizer_needs_them_no_more(
    hub: Path,
    tmp_path: Path,
    published: torch.nn.Module,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", *PARTS, f"data.train={pictures}", "data.batch_size=4", "data.num_workers=0"]
    words += ["trainer.max_steps=2", "trainer.ema_decay=0.9", "run_dir=run"]
    assert main(words) == 2
    announced, refused = capsys.readouterr().err.splitlines()
    assert announced.startswith("downloading model.safetensors from https://huggingface.co/timm/")
    assert refused.startswith("vqtrain: cannot download model.safetensors from https://")
    assert not Path("run").exists()
    file = cached(hub, published)
    assert main(words) == 0
    assert f"encoder: {MODEL}, weights from {file}" in Path("run/log.txt").read_text()
    file.unlink()
    # Neither its tokenizer, nor a resumed run, nor one that starts from it looks for the file.
    encoder = Tokenizer.from_pretrained("run").encoder
    given = published.state_dict()
    for name, value in encoder.model.state_dict().items():
        assert name == "pos_embed" or torch.equal(value, given[name])
    assert main(["train", "resume=run", "trainer.max_steps=3"]) == 0
    config = compose("train", read_command_line(["init_from=run", "data.image_size=32"]))
    module = build_module(config, Settings.of(config))
    assert begin(module, config)[0].startswith("init_from: ")
    for name, value in module.tokenizer.encoder.state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name])
    # At another size the positions are new: those of the published file.
    config = compose("train", read_command_line(["init_from=run", "data.image_size=64"]))
    with pytest.raises(WeightsError, match="cannot download"):
        begin(build_module(config, Settings.of(config)), config)
