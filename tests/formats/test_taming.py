"""taming-transformers, beside its own classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from taming.modules.vqvae.quantize import VectorQuantizer2
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import split_kind
from vqtrain.errors import CheckpointError, ConfigError
from vqtrain.formats.taming import Taming, to_theirs


def save(model: torch.nn.Module, tmp_path: Path, **more: Tensor) -> Path:
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": {**model.state_dict(), **more}}, file)
    return file


@torch.no_grad()
@pytest.mark.parametrize("legacy", [True, False])
def test_ids_pixels_and_loss_are_those_of_the_original(vqgan, images, tmp_path, legacy):
    model = vqgan(legacy=legacy)
    z_q, loss, (_, _, ids) = model.quantize(model.latents(images))
    tokenizer = Taming(legacy=legacy).convert(save(model, tmp_path))
    reconstruction = tokenizer(images)
    assert tokenizer.encode(images).flatten().tolist() == ids.tolist()
    assert len(ids.unique()) > 10
    torch.testing.assert_close(reconstruction.samples, model.decode(z_q), atol=1e-5, rtol=1e-5)
    decoded = tokenizer.decode(tokenizer.encode(images))
    torch.testing.assert_close(decoded, model.decode(z_q).clamp(-1, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reconstruction.quantized.loss, loss)


@pytest.mark.parametrize(("legacy", "weights"), [(True, (0.25, 1.0)), (False, (1.0, 0.25))])
def test_beta_goes_to_the_codes_in_the_legacy_loss(vqgan, tmp_path, legacy, weights):
    # The two losses differ in their gradients alone.
    arguments = (
        Taming(legacy=legacy).convert(save(vqgan(), tmp_path)).config["codebook"]["arguments"]
    )
    assert (arguments["codebook_weight"], arguments["commitment_weight"]) == weights


@torch.no_grad()
def test_gumbel_ids_are_the_largest_scores(gumbel_vqgan, images, tmp_path):
    model = gumbel_vqgan()
    latents = model.latents(images)
    ids = model.quantize.proj(latents).argmax(dim=1)  # its own forward adds noise
    shape = (len(images), *latents.shape[2:], 16)
    tokenizer = Taming().convert(save(model, tmp_path))
    assert torch.equal(tokenizer.encode(images), ids)
    assert len(ids.unique()) > 4
    z_q = model.quantize.get_codebook_entry(ids.flatten(), shape)
    torch.testing.assert_close(tokenizer(images).samples, model.decode(z_q), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_gumbel_loss_is_that_of_the_original(gumbel_vqgan, images, tmp_path):
    model = gumbel_vqgan(kl_weight=1e-8)
    tokenizer = Taming().convert(save(model, tmp_path)).train()
    _, loss, _ = model.quantize(model.latents(images))
    torch.testing.assert_close(tokenizer(images).quantized.loss, loss)


USED = [20, 3, 7, 0, 11, 5, 16, 1, 23, 9, 13, 2]


@pytest.fixture
def remap(tmp_path: Path) -> str:
    np.save(tmp_path / "used.npy", np.array(USED))
    return str(tmp_path / "used.npy")


@torch.no_grad()
def test_remapped_ids_are_places_in_the_list(vqgan, images, tmp_path, remap):
    model = vqgan(remap=remap)
    tokenizer = Taming().convert(save(model, tmp_path))
    ids = tokenizer.encode(images).flatten()
    latents = model.latents(images).movedim(1, -1).flatten(0, -2)
    table = model.quantize.embedding.weight
    in_use = torch.isin(torch.cdist(latents, table).argmin(dim=1), torch.tensor(USED))
    _, _, (_, _, original) = model.quantize(model.latents(images))
    assert torch.equal(ids[in_use], original.flatten()[in_use])
    assert 0 < in_use.sum() < len(ids)
    # The original draws an id for the others; here they get the nearest code in use.
    assert torch.equal(ids, torch.cdist(latents, table[USED]).argmin(dim=1))


@torch.no_grad()
def test_remapped_ids_decode_as_in_the_original(vqgan, tmp_path, remap):
    model = vqgan(remap=remap)
    tokenizer = Taming().convert(save(model, tmp_path))
    ids = torch.arange(len(USED))
    z_q = model.quantize.get_codebook_entry(ids, (1, 3, 4, 8))
    expected = model.decode(z_q).clamp(-1, 1)
    torch.testing.assert_close(tokenizer.decode(ids.view(1, 3, 4)), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_remapped_gumbel_ids_are_the_largest_scores_in_use(gumbel_vqgan, images, tmp_path, remap):
    model = gumbel_vqgan(remap=remap)
    scores = model.quantize.proj(model.latents(images))[:, USED]
    tokenizer = Taming().convert(save(model, tmp_path))
    assert tokenizer.vocab_size == len(USED)
    assert torch.equal(tokenizer.encode(images), scores.argmax(dim=1))


@pytest.mark.parametrize(
    ("used", "said"),
    [
        ([0, 24], "ids from 0 to 24, the table has 0 to 23"),
        ([-1, 2], "ids from -1 to 2"),
        ([1, 1], "no list of different ids"),
        ([], "no list of different ids"),
        ([[1, 2]], "no list of different ids"),
    ],
)
def test_a_list_that_the_table_does_not_have_is_refused(vqgan, tmp_path, used, said):
    file = save(vqgan(), tmp_path, **{"quantize.used": torch.tensor(used, dtype=torch.int64)})
    with pytest.raises(CheckpointError, match=said):
        Taming().convert(file)


def test_the_network_inside_a_transformer_model_is_found(vqgan, images, tmp_path):
    model = vqgan()
    weights = {f"first_stage_model.{name}": item for name, item in model.state_dict().items()}
    weights["transformer.tok_emb.weight"] = torch.zeros(3, 3)
    weights["first_stage_model.loss.logvar"] = torch.zeros(1)
    torch.save({"state_dict": weights}, tmp_path / "whole.ckpt")
    alone = Taming().convert(save(model, tmp_path))
    inside = Taming().convert(tmp_path / "whole.ckpt")
    assert torch.equal(inside.encode(images), alone.encode(images))


def test_what_only_the_training_needs_is_dropped(vqgan, tmp_path):
    more = {"loss.discriminator.main.0.weight": torch.zeros(2), "colorize": torch.zeros(3, 4, 1, 1)}
    assert Taming().convert(save(vqgan(), tmp_path, **more)).vocab_size == 24


def test_half_precision_weights_become_float32(vqgan, tmp_path):
    tokenizer = Taming().convert(save(vqgan().half(), tmp_path))
    assert {item.dtype for item in tokenizer.parameters()} == {torch.float32}


def test_a_continuous_autoencoder_is_refused(vqgan, tmp_path):
    weights = {n: item for n, item in vqgan().state_dict().items() if n.split(".")[0] != "quantize"}
    torch.save({"state_dict": weights}, tmp_path / "kl.ckpt")
    with pytest.raises(CheckpointError, match=r"quantize: quantize\.embedding\.weight is missing"):
        Taming().convert(tmp_path / "kl.ckpt")


EMA = {"size": 24, "dim": 8, "decay": 0.95, "commitment_weight": 0.25, "l2_normalize": False}
EMA |= {"gradient": "rotation", "kmeans_iterations": 0, "restart_below": 0.1}
EMA |= {"sampling_temperature": 0.0}
GUMBEL = {"size": 24, "dim": 16, "latent_dim": None, "kl_weight": 1e-4, "temperature": 1.0}
GUMBEL |= {"final_temperature": 0.5, "temperature_steps": 10}
NETWORK = {"multipliers": [2, 1, 2], "attention_factors": [2, 4], "latent_channels": 16, "side": 32}


@torch.no_grad()
def test_an_exported_tokenizer_is_the_same_in_its_code(
    cnn_tokenizer, vqgan_class, images, tmp_path
):
    tokenizer = cnn_tokenizer("ema", EMA, **NETWORK)
    agreement = Taming().export(tokenizer, tmp_path, images=[images])
    assert (agreement.ids, agreement.other_ids) == (2 * 8 * 12, 0)
    model = yaml.safe_load((tmp_path / "model.yaml").read_text())["model"]
    assert model["target"] == "taming.models.vqgan.VQModel"
    config = model["params"]
    assert config["ddconfig"]["attn_resolutions"] == [16, 8]
    table = VectorQuantizer2(config["n_embed"], config["embed_dim"], beta=0.25)
    theirs = vqgan_class(table, dim=config["embed_dim"], **config["ddconfig"]).eval()
    theirs.load_state_dict(torch.load(tmp_path / "last.ckpt")["state_dict"])
    z_q, _, (_, _, ids) = theirs.quantize(theirs.latents(images))
    assert torch.equal(tokenizer.encode(images).flatten(), ids)
    assert len(ids.unique()) > 8
    pixels = theirs.decode(z_q).clamp(-1, 1)
    torch.testing.assert_close(tokenizer.reconstruct(images), pixels, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["vq", "gumbel"])
def test_a_published_file_comes_back_as_it_was(vqgan, gumbel_vqgan, images, tmp_path, kind):
    model = {"vq": vqgan, "gumbel": gumbel_vqgan}[kind]()
    tokenizer = Taming().convert(save(model, tmp_path))
    (tmp_path / "out").mkdir()
    Taming().export(tokenizer, tmp_path / "out", images=[images])
    written = torch.load(tmp_path / "out/last.ckpt")["state_dict"]
    assert sorted(written) == sorted(model.state_dict())
    assert all(torch.equal(written[name], item) for name, item in model.state_dict().items())
    described = yaml.safe_load((tmp_path / "out/model.yaml").read_text())["model"]
    assert described["target"].endswith({"vq": ".VQModel", "gumbel": ".GumbelVQ"}[kind])
    scheduler = described["params"].get("temperature_scheduler_config", {"params": {}})["params"]
    assert scheduler.get("lr_min") == (0.0625 if kind == "gumbel" else None)


def test_names_and_sizes_of_an_export_are_those_of_the_published_file(published_cnn):
    expected = published_cnn.shapes(
        channels=128, multipliers=[1, 1, 2, 2, 4], latents=256, kernel=1, is_fused=False
    )
    expected["quantize.embedding.weight"] = (1024, 256)
    config = compose("train", read_command_line(["experiment=vqgan_f16_1024"]))
    parts = {part: split_kind(dict(config[part])) for part in ("encoder", "codebook", "decoder")}
    parts["encoder"]["arguments"]["in_channels"] = parts["decoder"]["arguments"]["out_channels"] = 3
    with torch.device("meta"):
        written = to_theirs(Tokenizer(**parts, channels=3), latent_channels=256)
    assert {name: tuple(item.shape) for name, item in written.items()} == expected


FSQ = {"size": 24, "levels": [4, 6], "eps": 1e-3}


@pytest.mark.parametrize(
    ("kind", "codebook", "said"),
    [
        ("fsq", FSQ, "VQModel takes the nearest row of one table, which codebook=fsq does not$"),
        ("gumbel", GUMBEL | {"dim": 8}, "codebook.dim and latent_dim must be 16, got 8 and 8$"),
    ],
)
def test_what_its_code_cannot_have_is_refused(cnn_tokenizer, tmp_path, kind, codebook, said):
    tokenizer = cnn_tokenizer(kind, codebook, **NETWORK)
    with pytest.raises(ConfigError, match=f"^taming-transformers' .*{said}"):
        Taming().export(tokenizer, tmp_path, images=[])
    assert list(tmp_path.iterdir()) == []
