"""The transformer of models over ids, written once more with loops over positions and heads."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centered = x - x.sum() / len(x)
    return centered / (centered.square().sum() / len(x) + 1e-5).sqrt() * norm.weight + norm.bias


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return layer.weight @ x + layer.bias


@torch.no_grad()
def transformer(network: nn.Module, xs: Sequence[Tensor], seen: Sequence[int]) -> list[Tensor]:
    """What becomes of positions, each of which sees so many from the first one on."""
    xs, dim = list(xs), len(xs[0])
    for block in network.blocks:
        qkv = [linear(layer_norm(x, block.norm1), block.qkv) for x in xs]
        for n, count in enumerate(seen):
            heads = []
            for head in range(0, dim, 32):
                query, *_ = qkv[n][head:].split(32)
                keys = [each[dim + head : dim + head + 32] for each in qkv[:count]]
                values = [each[2 * dim + head : 2 * dim + head + 32] for each in qkv[:count]]
                scores = [float((query * key).sum()) / math.sqrt(32) for key in keys]
                shares = [math.exp(score - max(scores)) for score in scores]
                mixed = sum(share * value for share, value in zip(shares, values, strict=True))
                heads.append(mixed / sum(shares))
            xs[n] = xs[n] + linear(torch.cat(heads), block.proj)
        for n, x in enumerate(xs):
            h = linear(layer_norm(x, block.norm2), block.mlp.fc1)
            h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
            xs[n] = x + linear(h, block.mlp.fc2)
    return [layer_norm(x, network.norm) for x in xs]


def nats(vocabulary: nn.Module, codebook: int, hidden: Tensor, token_id: int) -> float:
    """Minus the logarithm of the softmax at one id."""
    first = vocabulary.before + codebook * vocabulary.size
    vectors = vocabulary.table[first : first + vocabulary.size]
    logits = (vectors @ hidden + vocabulary.bias[codebook]).tolist()
    return math.log(sum(map(math.exp, logits))) - logits[token_id]
