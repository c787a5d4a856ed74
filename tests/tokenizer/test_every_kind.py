"""What a tokenizer of any codebook and any networks must do; a new yaml joins by itself."""

import copy
from functools import cache as once
from pathlib import Path
from typing import Any

import pytest
import torch

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import configs_folder, in_context, kinds, split_kind
from vqtrain.ranges import resolve_fractions

NETWORKS = sorted({*kinds("encoder")} & {*kinds("decoder")})
CODEBOOKS = sorted(path.stem for path in (configs_folder() / "codebook").glob("*.yaml"))
SMALL = {
    "vqvae": ["channels=8", "block_channels=4", "num_blocks=1"],
    "cnn": ["channels=8", "multipliers=[1,2,2]", "attention_factors=[4]", "num_blocks=1"],
    "latent_query": ["patch_size=4", "num_tokens=4", "dim=8", "depth=1", "num_heads=2"],
    "magvit2": ["channels=8", "multipliers=[1,2,2]", "num_blocks=1"],
    "maskgit": ["channels=8", "multipliers=[1,2,2]", "num_blocks=1"],
    "vit": ["patch_size=4", "dim=8", "depth=1", "num_heads=2"],
    "dvae": ["channels=4", "multipliers=[1,2,2]", "num_blocks=1"],
    "hierarchical": ["channels=4", "block_channels=2", "num_blocks=1"],
    "multiscale": ["scales=[1,2,4]", "num_convolutions=2"],
}


@once
def parts(kind: str, *groups: str) -> dict[str, Any]:
    """Compose small parts of one kind, as the command line does."""
    small = SMALL.get(kind, []) + ["size=16"] * (groups == ("codebook",))
    words = [f"{group}={kind}" for group in groups]
    words += [f"{group}.{word}" for group in groups for word in small]
    config = resolve_fractions(compose("train", read_command_line(words)), max_steps=20)
    found = {group: dict(config[group]) for group in groups}
    context = {"in_channels": 3, "out_channels": 3, "sample_size": (16, 16)}
    return {part: in_context(part, split_kind(of), context) for part, of in found.items()}


# A sequence of latents has no scales.
PAIRS = [
    (network, codebook)
    for network in NETWORKS
    for codebook in CODEBOOKS
    if network != "latent_query" or codebook not in ("hierarchical", "multiscale")
]


@pytest.fixture(params=PAIRS, ids="-".join)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    network, codebook = request.param
    made = Tokenizer(
        **parts(network, "encoder", "decoder"), **parts(codebook, "codebook"), channels=3
    )
    made.codebook.initialize(made.latents(torch.rand(4, 3, 16, 16) * 2 - 1))
    return made.eval()


def test_there_are_kinds_to_check() -> None:
    assert len(NETWORKS) >= 2
    assert len(CODEBOOKS) >= 12


@torch.no_grad()
def test_decoding_what_was_encoded_is_the_forward_pass(tokenizer: Tokenizer) -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    expected = tokenizer(images).samples.clamp(-1, 1)
    if tokenizer.codebook.num_codebooks:
        made = tokenizer.decode(tokenizer.encode(images))
    else:  # latents take the place of ids
        z_q = tokenizer.quantize(tokenizer.latents(images)).z_q
        made = tokenizer.decode_latents(z_q).clamp(-1, 1)
    assert torch.equal(made, expected)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_its_ids_are_those_of_the_same_codes_in_float32(
    tokenizer: Tokenizer, dtype: torch.dtype
) -> None:
    rounded = copy.deepcopy(tokenizer.codebook)
    for tensor in rounded.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(dtype))
    tokenizer.to(dtype)
    images = (torch.rand(2, 3, 16, 16) * 2 - 1).to(dtype)
    latents = tokenizer.latents(images)
    found, wide = tokenizer.quantize(latents), torch.promote_types(dtype, torch.float32)
    assert (latents.dtype, found.z_q.dtype) == (dtype, wide)
    assert {t.dtype for t in tokenizer.codebook.parameters()} <= {wide}
    expected = rounded.to(wide)(latents.to(wide))
    assert torch.equal(found.token_ids, expected.token_ids)
    torch.testing.assert_close(found.z_q, expected.z_q)
    assert tokenizer(images).samples.dtype == tokenizer.reconstruct(images.float()).dtype == dtype
    if tokenizer.codebook.num_codebooks:
        token_ids = tokenizer.encode(images)
        assert torch.equal(token_ids.reshape(found.token_ids.shape), found.token_ids)
        assert torch.equal(tokenizer.folded().encode(images), token_ids)
        assert torch.equal(tokenizer.decode(token_ids), tokenizer.reconstruct(images))


def test_it_goes_to_disk_and_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = Tokenizer.from_pretrained(tmp_path)
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        assert torch.equal(loaded(images).samples, tokenizer(images).samples)
