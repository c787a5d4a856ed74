"""Chameleon's tokenizer in transformers, whose network is that of taming-transformers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vqtrain.errors import CheckpointError
from vqtrain.formats.chameleon import Chameleon


def save(weights: dict[str, torch.Tensor], folder: Path, name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / name)
    return folder


def without_decoder(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    weights = model.state_dict()
    return {name: item for name, item in weights.items() if not name.startswith("decoder.")}


SIZES = {
    "embed_dim": 8,
    "num_embeddings": 24,
    "latent_channels": 16,
    "resolution": 32,
    "base_channels": 32,
    "channel_multiplier": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [16],
}


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True])
def test_ids_and_loss_are_those_of_transformers(images, tmp_path, whole):
    import transformers

    if whole:
        config = transformers.ChameleonConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            vq_config=SIZES,
            vocabulary_map={"<image>": 3},
        )
        model = transformers.ChameleonForConditionalGeneration(config)
        tokenizer = model.model.vqmodel
    else:
        model = tokenizer = transformers.ChameleonVQVAE(transformers.ChameleonVQVAEConfig(**SIZES))
    for parameter in tokenizer.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    latents = tokenizer.quant_conv(tokenizer.encoder(images))
    tokenizer.quantize.embedding.weight.copy_(latents.movedim(1, -1).flatten(0, 2)[:24])
    model.save_pretrained(tmp_path / "chameleon")
    _, loss, ids = tokenizer.quantize(latents)
    converted = Chameleon().convert(tmp_path / "chameleon")
    assert converted.encode(images).flatten().tolist() == ids.flatten().tolist()
    assert len(ids.unique()) > 10
    torch.testing.assert_close(converted(images).quantized.loss, loss)


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "vqmodel.", "model.vqmodel."])
def test_the_tokenizer_is_found_in_the_whole_model(vqgan, images, tmp_path, prefix):
    model = vqgan()
    _, _, (_, _, ids) = model.quantize(model.latents(images))
    weights = {f"{prefix}{name}": item for name, item in without_decoder(model).items()}
    language = ("model.layers.0.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight")
    folder = save(weights, tmp_path / "chameleon", "model-00001-of-00002.safetensors")
    rest = {name: torch.ones(2) for name in language}
    save(rest, folder, "model-00002-of-00002.safetensors")
    assert Chameleon().convert(folder).encode(images).flatten().tolist() == ids.tolist()


def test_ids_decode_to_gray_and_the_summary_says_so(vqgan, images, tmp_path):
    tokenizer = Chameleon().convert(save(without_decoder(vqgan()), tmp_path / "chameleon"))
    assert torch.equal(tokenizer.decode(tokenizer.encode(images)), torch.zeros_like(images))
    summary = tokenizer.config["training"]
    assert summary["decoder"] == "new: it gives gray until it is trained"


def test_the_new_decoder_can_learn(vqgan, images, tmp_path):
    tokenizer = Chameleon().convert(save(without_decoder(vqgan()), tmp_path / "chameleon")).train()
    optimizer = torch.optim.Adam(tokenizer.decoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        loss = (tokenizer(images).samples - images).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]


def test_the_new_decoder_is_always_the_same_and_draws_no_chance(vqgan, tmp_path):
    folder = save(without_decoder(vqgan()), tmp_path / "chameleon")
    torch.manual_seed(1)
    first = Chameleon().convert(folder).state_dict()
    torch.manual_seed(2)
    again = Chameleon().convert(folder).state_dict()
    for name, item in first.items():
        assert torch.equal(item, again[name]), name


def test_a_file_that_is_no_directory_is_refused(tmp_path):
    (tmp_path / "vqgan.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no directory with \.safetensors files"):
        Chameleon().convert(tmp_path / "vqgan.ckpt")
