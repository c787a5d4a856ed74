"""The transformer over bytes: against torch's own layers, and what a text does not depend on."""

import torch
from torch import nn

from vqtrain.layers.text import START, TextTransformer

TEXTS = ["a cat", "", "\u00e9t\u00e9", "a much longer text than the others"]


def transformer(max_bytes: int = 40) -> TextTransformer:
    torch.manual_seed(0)
    made = TextTransformer(dim=8, depth=2, num_heads=2, max_bytes=max_bytes).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)  # so that every byte matters
    return made


def test_each_text_is_what_torchs_own_layers_make_of_it_alone() -> None:
    ours = transformer()
    layers = []
    for block in ours.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        ).double()
        theirs = dict(layer.named_parameters())
        names = {
            "norm1": "norm1",
            "norm2": "norm2",
            "self_attn.out_proj": "attn.proj",
            "linear1": "mlp.fc1",
            "linear2": "mlp.fc2",
        }
        with torch.no_grad():
            for kind in ("weight", "bias"):
                theirs[f"self_attn.in_proj_{kind}"].copy_(block.get_parameter(f"attn.qkv.{kind}"))
                for name, own in names.items():
                    theirs[f"{name}.{kind}"].copy_(block.get_parameter(f"{own}.{kind}"))
        layers.append(layer)
    found = ours(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        ids = torch.tensor([[START, *text.encode()]])
        x = ours.tokens(ids) + ours.positions[: ids.shape[1]]
        for layer in layers:
            x = layer(x)
        torch.testing.assert_close(row, ours.norm(x[0, 0]), rtol=0, atol=1e-12)


def test_what_is_too_long_is_cut_off() -> None:
    ours = transformer(max_bytes=3)
    same, other = ours(["abc", "abcd", "abe"])[:2], ours(["abc", "abe"])
    assert torch.equal(same[0], same[1])
    assert not torch.allclose(other[0], other[1])
