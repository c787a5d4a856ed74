"""Networks of others with random weights: of their own classes, or of their published names."""

from collections.abc import Callable, Iterator
from functools import cache as once
from functools import reduce
from itertools import chain, repeat
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import GumbelQuantize, VectorQuantizer2
from torch import Tensor, nn
from torch.nn import functional as F

from vqtrain import Tokenizer
from vqtrain.build import config_of, configs_folder, in_context, kinds, split_kind
from vqtrain.errors import CheckpointError
from vqtrain.formats import web
from vqtrain.formats.base import Converter
from vqtrain.formats.parts.web_runtime import SCRIPT, WASM
from vqtrain.layers.convolutional import AdaptiveGroupNorm
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

    def __init__(self, quantize: nn.Module, *, z_channels: int, dim: int, **sizes: object) -> None:
        super().__init__()
        self.encoder = Encoder(**{**SIZES, **sizes}, z_channels=z_channels)
        self.decoder = Decoder(**{**SIZES, **sizes}, z_channels=z_channels)
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


@pytest.fixture(scope="session", autouse=True)
def _operators_are_listed_once() -> Iterator[None]:
    """Keep the exporter's list of what ONNX has: it makes it anew for each graph, in a second."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # takes 0.5 s

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(once(ONNXRegistry.from_torchlib)))
        yield


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
def vqgan_class() -> type[VQGAN]:
    """The published classes, to be built from sizes."""
    return VQGAN


@pytest.fixture(scope="session")
def gumbel_vqgan() -> Callable[..., VQGAN]:
    """Build a Gumbel VQGAN of the published classes."""

    def build(**options: object) -> VQGAN:
        quantize = GumbelQuantize(16, 16, n_embed=CODES, **options)
        model = VQGAN(quantize, z_channels=16, dim=16)
        randomize(model)
        return model.eval()

    return build


Shapes = dict[str, tuple[int, ...]]


def conv(name: str, to: int, of: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (to, of, kernel, kernel), f"{name}.bias": (to,)}


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


def block(name: str, of: int, to: int) -> Shapes:
    shapes = norm(f"{name}.norm1", of) | conv(f"{name}.conv1", to, of, 3)
    shapes |= norm(f"{name}.norm2", to) | conv(f"{name}.conv2", to, to, 3)
    return shapes | (conv(f"{name}.nin_shortcut", to, of, 1) if of != to else {})


def attention(name: str, channels: int, *, is_fused: bool = False) -> Shapes:
    shapes = norm(f"{name}.norm", channels) | conv(f"{name}.proj_out", channels, channels, 1)
    if is_fused:
        return shapes | conv(f"{name}.qkv", 3 * channels, channels, 1)
    for part in "qkv":
        shapes |= conv(f"{name}.{part}", channels, channels, 1)
    return shapes


def cnn_shapes(
    *, channels: int, multipliers: list[int], latents: int, kernel: int, is_fused: bool
) -> Shapes:
    """List the names and shapes of the first VQGAN's code: two blocks, attention at the last level.

    Args:
        channels: Of the first layer.
        multipliers: Of the levels.
        latents: Channels of the latents and of the codes.
        kernel: Side of the convolutions next to the codebook.
        is_fused: Whether queries, keys and values are one layer, as in VAR.
    """
    widths = [channels * multiplier for multiplier in multipliers]
    last, widest = len(widths) - 1, widths[-1]
    shapes = conv("encoder.conv_in", channels, 3, 3) | conv("decoder.conv_in", widest, latents, 3)
    for side, levels, num_blocks in (
        ("encoder.down", range(last + 1), 2),
        ("decoder.up", range(last, -1, -1), 3),
    ):
        width = channels if num_blocks == 2 else widest
        for level in levels:
            for index in range(num_blocks):
                shapes |= block(f"{side}.{level}.block.{index}", width, widths[level])
                width = widths[level]
                if level == last:
                    shapes |= attention(f"{side}.{level}.attn.{index}", width, is_fused=is_fused)
            if side == "encoder.down" and level < last:
                shapes |= conv(f"{side}.{level}.downsample.conv", width, width, 3)
            if side == "decoder.up" and level > 0:
                shapes |= conv(f"{side}.{level}.upsample.conv", width, width, 3)
    for side in ("encoder", "decoder"):
        for index in (1, 2):
            shapes |= block(f"{side}.mid.block_{index}", widest, widest)
        shapes |= attention(f"{side}.mid.attn_1", widest, is_fused=is_fused)
    shapes |= norm("encoder.norm_out", widest) | conv("encoder.conv_out", latents, widest, 3)
    shapes |= norm("decoder.norm_out", channels) | conv("decoder.conv_out", 3, channels, 3)
    for name in ("quant_conv", "post_quant_conv"):
        shapes |= conv(name, latents, latents, kernel)
    return shapes


def llamagen_shapes(
    *, widths: list[int], num_blocks: int, latents: int, dim: int, codes: int
) -> Shapes:
    """List LlamaGen's names and shapes: attention at the last level.

    Args:
        widths: Channels of the first layer and of each level.
        num_blocks: Of a level; the decoder has one more.
        latents: Channels of the latents.
        dim: Channels of a code.
        codes: How many there are.
    """
    first, *levels = widths
    last = levels[-1]
    shapes = conv("encoder.conv_in", first, 3, 3) | conv("decoder.conv_in", last, latents, 3)
    for side, order, count, resample in (
        ("encoder", levels, num_blocks, "downsample"),
        ("decoder", levels[::-1], num_blocks + 1, "upsample"),
    ):
        width = first if side == "encoder" else last
        for place, to in enumerate(order):
            name = f"{side}.conv_blocks.{place}"
            deepest = place == (len(levels) - 1 if side == "encoder" else 0)
            for index in range(count):
                shapes |= block(f"{name}.res.{index}", width, to)
                shapes |= attention(f"{name}.attn.{index}", to) if deepest else {}
                width = to
            if place < len(levels) - 1:
                shapes |= conv(f"{name}.{resample}.conv", to, to, 3)
        shapes |= block(f"{side}.mid.0", last, last) | attention(f"{side}.mid.1", last)
        shapes |= block(f"{side}.mid.2", last, last) | norm(f"{side}.norm_out", width)
    shapes |= conv("encoder.conv_out", latents, last, 3)
    shapes |= conv("decoder.conv_out", 3, levels[0], 3)
    shapes |= conv("quant_conv", dim, latents, 1) | conv("post_quant_conv", latents, dim, 1)
    return shapes | {"quantize.embedding.weight": (codes, dim), "quantize.codebook_used": (65536,)}


def drawn(shapes: Shapes) -> dict[str, Tensor]:
    """Draw tensors that keep the size of what passes through them."""
    torch.manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        values = torch.randn(shape)
        is_scale = len(shape) == 1 and name.endswith("weight")
        if len(shape) > 1:
            values = values / values[0].numel() ** 0.5
        weights[name] = (1.0 if is_scale else 0.0) + (values if len(shape) > 1 else 0.2 * values)
    return weights


@pytest.fixture(scope="session")
def draw() -> Callable[[dict[str, tuple[int, ...]]], dict[str, Tensor]]:
    """Draw weights of given names and shapes."""
    return drawn


@pytest.fixture(scope="session")
def llamagen_weights() -> dict[str, Tensor]:
    """LlamaGen's names with random tensors: two levels of 32 and 64 channels, one block each."""
    return drawn(llamagen_shapes(widths=[32, 32, 64], num_blocks=1, latents=16, dim=8, codes=CODES))


@pytest.fixture(scope="session")
def list_llamagen() -> Callable[..., Shapes]:
    """List LlamaGen's names and shapes."""
    return llamagen_shapes


class Published:
    """Networks with the names of the first VQGAN's code, and their forward passes written out."""

    shapes = staticmethod(cnn_shapes)
    drawn = staticmethod(drawn)

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def without(self, key: str, *, then: str, axis: int = 0) -> dict[str, Tensor]:
        """Weights with one that is missing, renamed or misshaped."""
        weights = dict(self.weights)
        item = weights.pop(key)
        if then == "renamed":
            weights[f"{key}_"] = item
        elif then == "misshaped":
            weights[key] = torch.cat([item, item.narrow(axis, 0, 1)], dim=axis)
        return weights

    def conv(self, name: str, x: Tensor, **options: int) -> Tensor:
        """A convolution that keeps the size."""
        weight = self.weights[f"{name}.weight"]
        options = {"padding": weight.shape[-1] // 2, **options}
        return F.conv2d(x, weight, self.weights.get(f"{name}.bias"), **options)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """The norm of 32 groups."""
        weight, bias = (self.weights[f"{name}.{part}"] for part in ("weight", "bias"))
        return F.group_norm(x, 32, weight, bias, eps=1e-6)

    def block(self, name: str, x: Tensor) -> Tensor:
        """A residual block."""
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        shortcut = f"{name}.nin_shortcut"
        return h + (self.conv(shortcut, x) if f"{shortcut}.weight" in self.weights else x)

    def attention(self, name: str, x: Tensor) -> Tensor:
        """Attention over all positions."""
        h = self.norm(f"{name}.norm", x)
        if f"{name}.qkv.weight" in self.weights:
            q, k, v = self.conv(f"{name}.qkv", h).flatten(2).chunk(3, dim=1)
        else:
            q, k, v = (self.conv(f"{name}.{part}", h).flatten(2) for part in "qkv")
        scores = torch.einsum("bci,bcj->bij", q, k) / q.shape[1] ** 0.5
        gathered = torch.einsum("bij,bcj->bci", scores.softmax(dim=2), v).view_as(x)
        return x + self.conv(f"{name}.proj_out", gathered)

    def level(self, name: str, x: Tensor) -> Tensor:
        """Blocks of a level, each with its attention if it has one."""
        for index in range(3):
            if f"{name}.block.{index}.conv1.weight" in self.weights:
                x = self.block(f"{name}.block.{index}", x)
            if f"{name}.attn.{index}.norm.weight" in self.weights:
                x = self.attention(f"{name}.attn.{index}", x)
        return x

    def middle(self, side: str, x: Tensor) -> Tensor:
        """Blocks and attention at the resolution of the latents."""
        x = self.attention(f"{side}.mid.attn_1", self.block(f"{side}.mid.block_1", x))
        return self.block(f"{side}.mid.block_2", x)

    def encode(self, images: Tensor, levels: int) -> Tensor:
        """What the quantizer is given."""
        h = self.conv("encoder.conv_in", images)
        for level in range(levels):
            h = self.level(f"encoder.down.{level}", h)
            if level < levels - 1:
                padded = F.pad(h, (0, 1, 0, 1))
                h = self.conv(f"encoder.down.{level}.downsample.conv", padded, stride=2, padding=0)
        h = F.silu(self.norm("encoder.norm_out", self.middle("encoder", h)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", h))

    def decode(self, z_q: Tensor, levels: int) -> Tensor:
        """Images of quantized latents."""
        h = self.conv("decoder.conv_in", self.conv("post_quant_conv", z_q))
        h = self.middle("decoder", h)
        for level in reversed(range(levels)):
            h = self.level(f"decoder.up.{level}", h)
            if level:
                doubled = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
                h = self.conv(f"decoder.up.{level}.upsample.conv", doubled)
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", h)))


@pytest.fixture(scope="session")
def published_cnn() -> type[Published]:
    """The first VQGAN's code by its names alone."""
    return Published


@pytest.fixture(scope="session")
def clip_block() -> Callable[[dict[str, Tensor], str, Tensor, int], Tensor]:
    """A block with the names of open_clip, by torch's own attention."""

    def block(w: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
        def norm(part: str, x: Tensor) -> Tensor:
            weight, bias = w[f"{name}.{part}.weight"], w[f"{name}.{part}.bias"]
            return F.layer_norm(x, x.shape[-1:], weight, bias)

        normed = norm("ln_1", x).transpose(0, 1)
        out = f"{name}.attn.out_proj"
        attended, _ = F.multi_head_attention_forward(
            *(normed, normed, normed, x.shape[-1], heads),
            *(w[f"{name}.attn.in_proj_{part}"] for part in ("weight", "bias")),
            *(None, None, False, 0.0, w[f"{out}.weight"], w[f"{out}.bias"]),
            need_weights=False,
        )
        x = x + attended.transpose(0, 1)
        hidden = F.linear(norm("ln_2", x), *(w[f"{name}.mlp.c_fc.{p}"] for p in ("weight", "bias")))
        last = (w[f"{name}.mlp.c_proj.{part}"] for part in ("weight", "bias"))
        return x + F.linear(F.gelu(hidden), *last)

    return block


@pytest.fixture
def refusals(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Say how a converter refuses weights of which one is missing, renamed or misshaped."""

    def said(
        converter: Converter, weights: dict[str, Tensor], key: str, section: str | None = None
    ) -> dict[str, str]:
        others = {name: item for name, item in weights.items() if name != key}
        item, axis = weights[key], int(key.endswith("embedding.weight"))  # any number of codes
        longer = torch.cat([item, item.narrow(axis, 0, 1)], dim=axis)
        messages = {}
        for what, wrong in {
            "missing": others,
            "renamed": {**others, f"{key}_": item},
            "misshaped": {**others, key: longer},
        }.items():
            path = tmp_path / f"{what}.bin"
            torch.save({section: wrong} if section else wrong, path)
            with pytest.raises(CheckpointError) as raised:
                converter.convert(path)
            assert str(raised.value).startswith(f"cannot convert {path}: its weights do not fit: ")
            messages[what] = str(raised.value)
        return messages

    return said


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


@pytest.fixture
def cnn_tokenizer() -> Callable[..., Tokenizer]:
    """Build a tokenizer of ``cnn`` networks with random weights, and with codes among its latents.

    The bias of the projection behind the codebook is as large as what it is added to.
    """

    def build(kind: str, codebook: dict[str, object], *, side: int, **levels: object) -> Tokenizer:
        levels = {"num_blocks": 1, "dropout": 0.0, "channels": 32, **levels}
        tokenizer = Tokenizer(
            encoder={"kind": "cnn", "arguments": {**levels, "in_channels": 3}},
            codebook={"kind": kind, "arguments": codebook},
            decoder={"kind": "cnn", "arguments": {**levels, "out_channels": 3}},
            channels=3,
            training={"image_size": side},
        ).eval()
        for part in (tokenizer.encoder, tokenizer.decoder):
            randomize(part)
        nn.init.normal_(tokenizer.project_out.bias)
        images = torch.rand(2, 3, side, side) * 2 - 1
        spread_latents(tokenizer, images)
        with torch.no_grad():
            tokenizer.codebook.initialize(tokenizer.latents(images))
        return tokenizer

    torch.manual_seed(0)
    return build


CODEBOOKS = sorted(path.stem for path in (configs_folder() / "codebook").glob("*.yaml"))
NETWORKS = sorted({*kinds("encoder")} & {*kinds("decoder")})
# Decoders without an encoder of their own, and one that each decodes.
ENCODERS = {"rectified": "cnn", "rectifier": "identity", "titok": "latent_query"}
# Those of sounds and clips, for which test_graphs.py looks at the graphs.
OTHERS = ("jukebox", "magvit2_video", "seanet", "videogpt")
# Little is traced of them.
SMALL = {
    "vqvae": ["channels=4", "block_channels=2", "num_blocks=0"],
    "cnn": ["channels=8", "multipliers=[1,2]", "attention_factors=[]", "num_blocks=1"],
    "dvae": ["channels=4", "multipliers=[1,2]", "num_blocks=1"],
    "latent_query": ["patch_size=4", "num_tokens=4", "dim=8", "depth=1", "num_heads=2"],
    "dcae": ["channels=8", "multipliers=[1,2]", "attention_factors=[2]", "head_dim=8"],
    "magvit2": ["channels=16", "multipliers=[1,2]", "num_blocks=1"],
    "maskgit": ["channels=8", "multipliers=[1,2]", "num_blocks=1"],
    "vit": ["patch_size=4", "dim=8", "depth=1", "num_heads=2"],
    "rectifier": ["channels=8", "num_blocks=1"],
    "rectified": [
        *("latent_channels=8", "rectifier.channels=8", "rectifier.num_blocks=1"),
        *("inner.channels=8", "inner.multipliers=[1,2]", "inner.num_blocks=1"),
    ],
    "titok": [
        *("num_tokens=4", "dim=8", "depth=1", "num_heads=2", "num_codes=16"),
        *("channels=8", "multipliers=[1,2,2]", "num_blocks=1", "latent_channels=8"),
    ],
    "videogpt": ["channels=4", "num_blocks=1"],
    "magvit2_video": ["channels=4", "multipliers=[1,1,2]", "time_strides=[2,1]", "num_blocks=1"],
    "seanet": ["channels=4", "strides=[6]", "num_lstm_layers=1"],
    "jukebox": ["channels=4", "num_blocks=1", "strides=[[2],[3]]"],
    "hierarchical": ["channels=4", "block_channels=2", "num_blocks=1"],
    "multiscale": ["scales=[1,3,4]", "num_convolutions=2"],
}


def settings_of(group: str, kind: str) -> dict[str, Any]:
    """Read the keys of a kind, and of one inside it, which takes less time than to compose them."""
    found = yaml.safe_load(config_of(group, kind).read_text())
    for default in found.pop("defaults", []):
        if default != "_self_":
            (inner,) = default.values()
            found["inner"] = settings_of(group, inner) | found["inner"]
    return found


def parts(kind: str, *groups: str) -> dict[str, Any]:
    """Make small parts of one kind."""
    found = {group: settings_of(group, kind) for group in groups}
    for settings in found.values():
        for word in SMALL.get(kind, []) + ["size=16"] * (groups == ("codebook",)):
            key, _, value = word.partition("=")
            *outer, last = key.split(".")
            reduce(getitem, outer, settings)[last] = yaml.safe_load(value)
    found = resolve_fractions(found, max_steps=20)
    context = {"in_channels": 3, "out_channels": 3, "sample_size": (16, 16)}
    return {part: in_context(part, split_kind(of), context) for part, of in found.items()}


@torch.no_grad()
def spread_latents(tokenizer: Tokenizer, images: Tensor) -> None:
    """Give each channel mean 0 and variance 1, so that ids differ from position to position."""
    latents = tokenizer.latents(images).movedim(1, -1).flatten(0, -2)
    tokenizer.project_in.bias.copy_((tokenizer.project_in.bias - latents.mean(0)) / latents.std(0))
    tokenizer.project_in.weight.div_(latents.std(0)[:, None, None, None])


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Tokenizer]:
    """Build a small tokenizer of a codebook and networks, with codes among its latents.

    The networks are those of the decoder's kind.
    """

    def make(codebook: str = "ema", network: str = "vqvae", **arguments: object) -> Tokenizer:
        encoder = ENCODERS.get(network, network)
        tokenizer = Tokenizer(
            **parts(encoder, "encoder"),
            **parts(network, "decoder"),
            **parts(codebook, "codebook"),
            **{"channels": 3, **arguments},
        )
        if encoder == "latent_query":
            randomize(tokenizer.encoder)  # as drawn for training, its latents hardly see the image
        for module in tokenizer.decoder.modules():
            if isinstance(module, AdaptiveGroupNorm):
                # A gain near 0 makes a channel nearly constant, and the group normalization of one
                # channel that comes next loses its variance in float32.
                nn.init.ones_(module.gamma.bias)
        size = tokenizer.encoder.size([4] * len(tokenizer.downsampling))
        images = torch.rand(4, tokenizer.channels, *size) * 2 - 1
        spread_latents(tokenizer, images)
        tokenizer.codebook.initialize(tokenizer.latents(images))
        return tokenizer.eval()

    return make


def pairs() -> Iterator[tuple[str, str]]:
    """Each codebook that has ids, and each network once; then the one that is traced soonest."""
    networks = chain((each for each in NETWORKS if each not in OTHERS), repeat("vqvae"))
    for codebook in CODEBOOKS:
        if codebook not in ("continuous", "kl"):
            needs_rows = codebook in ("hierarchical", "multiscale")
            yield codebook, "vqvae" if needs_rows else next(networks)


@pytest.fixture(params=pairs(), ids="-".join)
def tokenizer(
    request: pytest.FixtureRequest, make_tokenizer: Callable[..., Tokenizer]
) -> Tokenizer:
    """A small tokenizer of each codebook that has ids, and of each network."""
    return make_tokenizer(*request.param)


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take little files for the runtime of pages, where none runs."""
    files = {SCRIPT: b"export default 1;", WASM: b"wasm"}
    monkeypatch.setattr(web, "runtime_files", lambda _: files)
