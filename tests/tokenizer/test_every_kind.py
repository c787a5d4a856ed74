"""What a tokenizer of any codebook and any networks must do; a new yaml joins by itself."""

import copy
from functools import cache as once
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import build, configs_folder, in_context, kinds, split_kind
from vqtrain.encoders.base import Encoder
from vqtrain.ranges import resolve_fractions

NETWORKS = sorted({*kinds("encoder")} & {*kinds("decoder")})
CODEBOOKS = sorted(path.stem for path in (configs_folder() / "codebook").glob("*.yaml"))
SMALL = {
    "vqvae": ["channels=8", "block_channels=4", "num_blocks=1"],
    "cnn": ["channels=8", "multipliers=[1,2,2]", "attention_factors=[4]", "num_blocks=1"],
    "latent_query": ["patch_size=4", "num_tokens=4", "dim=8", "depth=1", "num_heads=2"],
    "dcae": ["channels=8", "multipliers=[1,2,4]", "attention_factors=[4]", "head_dim=8"],
    "magvit2": ["channels=8", "multipliers=[1,2,2]", "num_blocks=1"],
    "maskgit": ["channels=8", "multipliers=[1,2,2]", "num_blocks=1"],
    "vit": ["patch_size=4", "dim=8", "depth=1", "num_heads=2"],
    "dvae": ["channels=4", "multipliers=[1,2,2]", "num_blocks=1"],
    "videogpt": ["channels=8", "num_blocks=1"],
    "magvit2_video": ["channels=4", "multipliers=[1,1,2]", "time_strides=[2,1]", "num_blocks=1"],
    "jukebox": ["channels=8", "num_blocks=1", "strides=[[2,2]]"],
    "seanet": ["channels=4", "strides=[2,2]", "latent_channels=8"],
    "hierarchical": ["channels=4", "block_channels=2", "num_blocks=1"],
    "multiscale": ["scales=[1,2,4]", "num_convolutions=2"],
}


@once
def parts(kind: str, *groups: str, size: tuple[int, ...] = (16, 16)) -> dict[str, Any]:
    """Compose small parts of one kind, as the command line does."""
    small = SMALL.get(kind, []) + ["size=16"] * (groups == ("codebook",))
    words = [f"{group}={kind}" for group in groups]
    words += [f"{group}.{word}" for group in groups for word in small]
    config = resolve_fractions(compose("train", read_command_line(words)), max_steps=20)
    found = {group: dict(config[group]) for group in groups}
    context = {"in_channels": 3, "out_channels": 3, "sample_size": size}
    return {part: in_context(part, split_kind(of), context) for part, of in found.items()}


@once
def encoder_of(network: str) -> Encoder:
    """The encoder of a network: of images, if it takes those."""
    encoder = parts(network, "encoder")["encoder"]
    return build("encoder", encoder["kind"], encoder["arguments"])


def size_of(network: str) -> tuple[int, ...]:
    """The size of the samples of a network."""
    encoder = encoder_of(network)
    axes = len(encoder.downsampling)
    return encoder.size((4 if axes < 3 else 2,) * axes)


# A sequence of latents has no scales. Codebooks do not depend on the axes, so that other samples
# than images need few of them.
PAIRS = [
    (network, codebook)
    for network in NETWORKS
    for codebook in (CODEBOOKS if len(size_of(network)) == 2 else ["kl", "residual"])
    if network != "latent_query" or codebook not in ("hierarchical", "multiscale")
]


@pytest.fixture(params=PAIRS, ids="-".join)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    network, codebook = request.param
    size = size_of(network)
    made = Tokenizer(
        **parts(network, "encoder", "decoder", size=size), **parts(codebook, "codebook"), channels=3
    )
    made.codebook.initialize(made.latents(torch.rand(4, 3, *size) * 2 - 1))
    return made.eval()


@pytest.fixture
def samples(request: pytest.FixtureRequest) -> Tensor:
    """Two samples for the tokenizer."""
    network, _ = request.node.callspec.params["tokenizer"]
    return torch.rand(2, 3, *size_of(network)) * 2 - 1


def test_there_are_kinds_to_check() -> None:
    assert len(NETWORKS) >= 2
    assert len(CODEBOOKS) >= 12


@torch.no_grad()
def test_decoding_what_was_encoded_is_the_forward_pass(
    tokenizer: Tokenizer, samples: Tensor
) -> None:
    expected = tokenizer(samples).samples.clamp(-1, 1)
    if tokenizer.codebook.num_codebooks:
        made = tokenizer.decode(tokenizer.encode(samples))
    else:  # latents take the place of ids
        z_q = tokenizer.quantize(tokenizer.latents(samples)).z_q
        made = tokenizer.decode_latents(z_q).clamp(-1, 1)
    assert torch.equal(made, expected)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_its_ids_are_those_of_the_same_codes_in_float32(
    tokenizer: Tokenizer, samples: Tensor, dtype: torch.dtype
) -> None:
    rounded = copy.deepcopy(tokenizer.codebook)
    for tensor in rounded.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))
    tokenizer.to(dtype)
    samples = samples.to(dtype)
    latents = tokenizer.latents(samples)
    found, wide = tokenizer.quantize(latents), torch.promote_types(dtype, torch.float32)
    assert (latents.dtype, found.z_q.dtype) == (dtype, wide)
    assert {t.dtype for t in tokenizer.codebook.parameters()} <= {wide}
    expected = rounded.to(wide)(latents.to(wide))
    assert torch.equal(found.token_ids, expected.token_ids)
    torch.testing.assert_close(found.z_q, expected.z_q)
    assert tokenizer(samples).samples.dtype == tokenizer.reconstruct(samples.float()).dtype == dtype
    if tokenizer.codebook.num_codebooks:
        token_ids = tokenizer.encode(samples)
        assert torch.equal(token_ids.reshape(found.token_ids.shape), found.token_ids)
        assert torch.equal(tokenizer.folded().encode(samples), token_ids)
        assert torch.equal(tokenizer.decode(token_ids), tokenizer.reconstruct(samples))


@torch.no_grad()
@pytest.mark.parametrize("network", [name for name in NETWORKS if encoder_of(name).causal])
def test_nothing_later_changes_what_a_causal_network_gives(network: str) -> None:
    torch.manual_seed(0)
    made = Tokenizer(**parts(network, "encoder", "decoder"), **parts("ema", "codebook"), channels=3)
    at_once, others = made.encoder.latents_at_once, [2] * (len(made.downsampling) - 1)
    (begin, *_), all_of_it = (made.encoder.size((n * at_once, *others)) for n in (1, 3))
    samples = torch.rand(2, 3, *all_of_it) * 2 - 1
    made.codebook.initialize(made.latents(samples))
    made.eval()
    token_ids, latents = made.encode(samples), made.latents(samples)
    assert len(token_ids.unique()) > 4
    samples[:, :, begin:] *= -1
    later = made.encode(samples)
    assert torch.equal(later[:, :at_once], token_ids[:, :at_once])
    assert not torch.equal(made.latents(samples), latents)
    assert torch.equal(made.encode(samples[:, :, :begin]), token_ids[:, :at_once])
    piece = at_once * made.downsampling[0]
    assert torch.equal(made.encode(samples, piece=piece), later)
    decoded = made.decode(later)
    assert torch.equal(made.decode(later, piece=piece), decoded)
    assert torch.equal(made.decode(later[:, :at_once]), decoded[:, :, :begin])


def test_it_goes_to_disk_and_back(tokenizer: Tokenizer, samples: Tensor, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(samples).samples, tokenizer(samples).samples)
