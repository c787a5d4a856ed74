"""Networks of others with random weights: of their own classes, or of their published names."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import GumbelQuantize, VectorQuantizer2
from torch import Tensor, nn

from vqtrain import Tokenizer
from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.build import configs_folder, in_context, split_kind
from vqtrain.ranges import resolve_fractions

SIZES = {
    "double_z": False,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": [16],
    "dropout": 0.0,
}
CODES = 24


class VQGAN(nn.Module):
    """The published classes, joined as the published models join them."""

    def __init__(self, quantize: nn.Module, *, z_channels: int, dim: int) -> None:
        super().__init__()
        self.encoder = Encoder(**SIZES, z_channels=z_channels)
        self.decoder = Decoder(**SIZES, z_channels=z_channels)
        self.quantize = quantize
        self.quant_conv = nn.Conv2d(z_channels, dim, 1)
        self.post_quant_conv = nn.Conv2d(dim, z_channels, 1)

    def latents(self, images: Tensor) -> Tensor:
        """What the quantizer is given."""
        return self.quant_conv(self.encoder(images))

    def decode(self, z_q: Tensor) -> Tensor:
        """Images of quantized latents."""
        return self.decoder(self.post_quant_conv(z_q))


@torch.no_grad()
def randomize(module: nn.Module) -> None:
    """Draw all parameters, also those that begin as ones and zeros."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.2 * torch.randn_like(parameter))
        else:
            parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)


@torch.no_grad()
def spread(table: Tensor, latents: Tensor) -> None:
    """Put the codes among the latents, so that many of them are used."""
    vectors = latents.movedim(1, -1).flatten(0, -2)
    chosen = torch.randperm(len(vectors))[: len(table)]
    table.copy_(vectors[chosen] + 0.1 * torch.randn_like(table))


@pytest.fixture(scope="session")
def images() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="session")
def vqgan(images: Tensor) -> Callable[..., VQGAN]:
    """Build a VQGAN of the published classes."""

    def build(*, z_channels: int = 16, dim: int = 8, **options: object) -> VQGAN:
        model = VQGAN(
            VectorQuantizer2(CODES, dim, beta=0.25, **options), z_channels=z_channels, dim=dim
        )
        randomize(model)
        spread(model.quantize.embedding.weight, model.latents(images))
        return model.eval()

    return build


@pytest.fixture(scope="session")
def gumbel_vqgan() -> Callable[..., VQGAN]:
    """Build a Gumbel VQGAN of the published classes."""

    def build(**options: object) -> VQGAN:
        quantize = GumbelQuantize(16, 16, n_embed=CODES, **options)
        model = VQGAN(quantize, z_channels=16, dim=16)
        randomize(model)
        return model.eval()

    return build


def llamagen_shapes() -> dict[str, tuple[int, ...]]:
    """List LlamaGen's names and shapes, of two levels of 32 and 64 channels with one block each."""

    def conv(name: str, to: int, of: int, kernel: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (to, of, kernel, kernel), f"{name}.bias": (to,)}

    def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}

    def block(name: str, of: int, to: int) -> dict[str, tuple[int, ...]]:
        shapes = norm(f"{name}.norm1", of) | conv(f"{name}.conv1", to, of, 3)
        shapes |= norm(f"{name}.norm2", to) | conv(f"{name}.conv2", to, to, 3)
        return shapes | (conv(f"{name}.nin_shortcut", to, of, 1) if of != to else {})

    def attention(name: str, channels: int) -> dict[str, tuple[int, ...]]:
        shapes = norm(f"{name}.norm", channels)
        for part in ("q", "k", "v", "proj_out"):
            shapes |= conv(f"{name}.{part}", channels, channels, 1)
        return shapes

    def middle(side: str) -> dict[str, tuple[int, ...]]:
        shapes = block(f"{side}.mid.0", 64, 64) | attention(f"{side}.mid.1", 64)
        return shapes | block(f"{side}.mid.2", 64, 64)

    shapes = conv("encoder.conv_in", 32, 3, 3)
    shapes |= block("encoder.conv_blocks.0.res.0", 32, 32)
    shapes |= conv("encoder.conv_blocks.0.downsample.conv", 32, 32, 3)
    shapes |= block("encoder.conv_blocks.1.res.0", 32, 64)
    shapes |= attention("encoder.conv_blocks.1.attn.0", 64)
    shapes |= middle("encoder") | norm("encoder.norm_out", 64) | conv("encoder.conv_out", 16, 64, 3)
    shapes |= conv("decoder.conv_in", 64, 16, 3) | middle("decoder")
    for index in range(2):
        shapes |= block(f"decoder.conv_blocks.0.res.{index}", 64, 64)
        shapes |= attention(f"decoder.conv_blocks.0.attn.{index}", 64)
    shapes |= conv("decoder.conv_blocks.0.upsample.conv", 64, 64, 3)
    shapes |= block("decoder.conv_blocks.1.res.0", 64, 32)
    shapes |= block("decoder.conv_blocks.1.res.1", 32, 32)
    shapes |= norm("decoder.norm_out", 32) | conv("decoder.conv_out", 3, 32, 3)
    shapes |= conv("quant_conv", 8, 16, 1) | conv("post_quant_conv", 16, 8, 1)
    return shapes | {"quantize.embedding.weight": (CODES, 8), "quantize.codebook_used": (65536,)}


@pytest.fixture(scope="session")
def llamagen_weights() -> dict[str, Tensor]:
    """LlamaGen's names with random tensors."""
    torch.manual_seed(0)
    weights = {}
    for name, shape in llamagen_shapes().items():
        drawn = torch.randn(shape)
        is_scale = "norm" in name and name.endswith("weight")
        if len(shape) > 1:
            drawn = drawn / drawn[0].numel() ** 0.5
        weights[name] = (1.0 if is_scale else 0.0) + (drawn if len(shape) > 1 else 0.2 * drawn)
    return weights


@pytest.fixture(scope="session")
def published(
    vqgan: Callable[..., VQGAN],
    gumbel_vqgan: Callable[..., VQGAN],
    llamagen_weights: dict[str, Tensor],
) -> Callable[[str], dict[str, Tensor]]:
    """Return the weights of a small network of a kind, by the names in its checkpoints."""
    torch.manual_seed(0)
    plain = vqgan().state_dict()
    encoding = {name: item for name, item in plain.items() if not name.startswith("decoder.")}
    others = {
        "llamagen": llamagen_weights,
        "gumbel": gumbel_vqgan().state_dict(),
        "chameleon": encoding,
    }
    return lambda kind: dict(others.get(kind, plain))


@pytest.fixture
def write_published(tmp_path: Path) -> Callable[[str, dict[str, Tensor]], Path]:
    """Write weights as checkpoints of a kind are written."""

    def write(kind: str, weights: dict[str, Tensor]) -> Path:
        if kind == "chameleon":
            from safetensors.torch import save_file

            folder = tmp_path / kind
            folder.mkdir(exist_ok=True)
            save_file(weights, folder / "model.safetensors")
            return folder
        section = "model" if kind == "llamagen" else "state_dict"
        torch.save({section: weights, "epoch": 3}, tmp_path / f"{kind}.ckpt")
        return tmp_path / f"{kind}.ckpt"

    return write


CODEBOOKS = sorted(path.stem for path in (configs_folder() / "codebook").glob("*.yaml"))
# Little is traced of them: the codebooks are what differs.
SMALL = {
    "vqvae": ["channels=4", "block_channels=2", "num_blocks=0"],
    "cnn": ["channels=8", "multipliers=[1,2]", "attention_factors=[]", "num_blocks=1"],
    "multiscale": ["scales=[1,3,4]", "num_convolutions=2"],
}


def parts(kind: str, *groups: str) -> dict[str, Any]:
    """Compose small parts of one kind, as the command line does."""
    small = SMALL.get(kind, []) + ["size=16"] * (groups == ("codebook",))
    words = [f"{group}={kind}" for group in groups]
    words += [f"{group}.{word}" for group in groups for word in small]
    config = resolve_fractions(compose("train", read_command_line(words)), max_steps=20)
    found = {group: dict(config[group]) for group in groups}
    context = {"in_channels": 3, "out_channels": 3}
    return {part: in_context(part, split_kind(of), context) for part, of in found.items()}


@torch.no_grad()
def spread_latents(tokenizer: Tokenizer, images: Tensor) -> None:
    """Give each channel mean 0 and variance 1, so that ids differ from position to position."""
    latents = tokenizer.latents(images).movedim(1, -1).flatten(0, -2)
    tokenizer.project_in.bias.copy_((tokenizer.project_in.bias - latents.mean(0)) / latents.std(0))
    tokenizer.project_in.weight.div_(latents.std(0)[:, None, None, None])


@pytest.fixture
def make_tokenizer() -> Callable[..., Tokenizer]:
    """Build a small tokenizer of a codebook and networks, with codes among its latents."""

    def make(codebook: str = "ema", network: str = "vqvae", **arguments: object) -> Tokenizer:
        tokenizer = Tokenizer(
            **parts(network, "encoder", "decoder"),
            **parts(codebook, "codebook"),
            **{"channels": 3, **arguments},
        )
        side = 4 * tokenizer.downsampling[0]
        images = torch.rand(4, tokenizer.channels, side, side) * 2 - 1
        spread_latents(tokenizer, images)
        tokenizer.codebook.initialize(tokenizer.latents(images))
        return tokenizer.eval()

    return make


@pytest.fixture(params=[kind for kind in CODEBOOKS if kind != "kl"])
def tokenizer(
    request: pytest.FixtureRequest, make_tokenizer: Callable[..., Tokenizer]
) -> Tokenizer:
    """A small tokenizer of each codebook that has ids."""
    return make_tokenizer(request.param)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Check no types: while a graph is traced, its sizes are symbols and no whole numbers."""
    jaxtyping.config.update("jaxtyping_disable", True)
    logging.getLogger("torch.__trace").setLevel(logging.CRITICAL)  # pytest would keep all of it
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
