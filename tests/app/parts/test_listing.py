"""The list of a leaderboard: what it takes, and what is wrong with one."""

from pathlib import Path

import pytest

from vqtrain.app.parts.listing import Listing, read_listing
from vqtrain.errors import ConfigError

PROTOCOL = "protocol: {images: demo, image_size: 32}\n"


def read(tmp_path: Path, text: str) -> Listing:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return read_listing(file)


def test_everything_a_list_may_say_becomes_words(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        """
        protocol:
          images: [photos, {images: "a, b.tar", weight: 2}]
          image_size: [32, 48]
          metrics: [psnr, {kind: lpips, network: vgg}]
          crop: native
          cost: false
          weights: {vgg: ~/vgg16.pth}
        tokenizers:
          - runs/a/latest
          - {path: "a,b", name: A, note: the first, num_tokens: 32}
          - {kind: vqvae2, path: vq.pt, levels: [1, 2]}
        """
    )
    found = read_listing(file)
    assert found.title == "mine"
    assert found.protocol.words == [
        'images=["photos",{images:"a, b.tar",weight:2}]',
        "image_size=[32,48]",
        "metrics=[psnr,{kind:lpips,network:vgg}]",
        "crop=native",
        "cost=false",
        "weights.vgg=~/vgg16.pth",
    ]
    plain, named, converted = found.tokenizers
    assert (plain.shown, plain.convert_words) == ("runs/a/latest", [])
    assert plain.evaluate_words(plain.path) == ["evaluate", "tokenizer=runs/a/latest"]
    assert (named.shown, named.note) == ("A", "the first")
    assert named.evaluate_words(named.path) == ["evaluate", 'tokenizer=["a,b"]', "num_tokens=32"]
    assert converted.convert_words == ["convert", "kind=vqvae2", "path=vq.pt", "levels=[1,2]"]


def test_the_list_of_the_documentation_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs/leaderboard.md").read_text()
    found = read(tmp_path, page.partition("```yaml\n")[2].partition("```")[0])
    assert [each.shown for each in found.tokenizers] == [
        *("FSQ 4096", "hf://org/name", "LlamaGen VQ-16", "runs/titok/latest (32 tokens)")
    ]
    assert found.protocol.words[:2] == ["images=/data/imagenet-val", "image_size=256"]


def test_equal_paths_are_told_apart_by_their_numbers_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"{PROTOCOL}tokenizers: [a, {{path: a, num_tokens: 4}}, {{path: a, num_tokens: 8}}]"
    )
    names = [each.shown for each in read_listing(file).tokenizers]
    assert names == ["a", "a (4 tokens)", "a (8 tokens)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml must be a mapping with the key tokenizers, got null"),
        ("a: [", "mine.yaml is not valid YAML: while parsing"),
        ("- a", 'must be a mapping with the key tokenizers, got ["a"]'),
        (f"{PROTOCOL}tokenizer: [a]", "unknown key 'tokenizer', did you mean 'tokenizers'?"),
        (f"{PROTOCOL}title: 3\ntokenizers: [a]", "title must be a text, got 3"),
        ("tokenizers: [a]", "protocol must have images and image_size"),
        ("protocol: {images: demo}\ntokenizers: [a]", "protocol must have images and image_size"),
        ("protocol: demo\ntokenizers: [a]", "protocol must have images and image_size"),
        (PROTOCOL, "tokenizers must be a list of paths"),
        (f"{PROTOCOL}tokenizers: []", "tokenizers must be a list of paths"),
        (f"{PROTOCOL}tokenizers: a", "tokenizers must be a list of paths"),
        (
            f"{PROTOCOL}tokenizers: [[a]]",
            'tokenizers[0] must be a path, or a mapping with one, got ["a"]',
        ),
        (f"{PROTOCOL}tokenizers: [{{name: a}}]", "tokenizers[0].path is missing"),
        (f"{PROTOCOL}tokenizers: [a, {{path: 3}}]", "tokenizers[1].path must be text, got 3"),
        (
            f"{PROTOCOL}tokenizers: [{{path: a, nots: b}}]",
            "tokenizers[0]: unknown key 'nots', did you mean 'note'?",
        ),
        (
            f"{PROTOCOL}tokenizers: [{{path: a, options: {{}}}}]",
            "write the keys of convert beside kind",
        ),
        (f"{PROTOCOL}tokenizers: [{{path: a, num_tokens: 0}}]", "num_tokens must be at least 1"),
        (f"{PROTOCOL}tokenizers: [a, a]", "a is named twice: remove one, or give each a name"),
        (
            "protocol: {images: demo, image_size: x}\ntokenizers: [a]",
            "protocol.image_size must be a whole number or [height,width]",
        ),
        (
            "protocol: {images: demo, image_size: 8, metric: []}\ntokenizers: [a]",
            "protocol: unknown key 'metric', did you mean 'metrics'?",
        ),
        (
            "protocol: {images: demo, image_size: 8, pictures: 65}\ntokenizers: [a]",
            "protocol.pictures must be in [0, 64], got 65",
        ),
    ],
)
def test_what_is_wrong_with_a_list_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    assert message in str(raised.value)
    assert "mine.yaml" in str(raised.value)


def test_a_list_that_is_not_there_or_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        read_listing(tmp_path / "none.yaml")
    (tmp_path / "zip.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"zip\.yaml is not valid YAML"):
        read_listing(tmp_path / "zip.yaml")
