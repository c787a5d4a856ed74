"""The model card: the front matter that the hub reads, and what people read."""

from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard

from vqtrain import Tokenizer
from vqtrain.errors import ConfigError
from vqtrain.formats.parts.card import Facts, card, check_license, example_of, write_card

SUMMARY = {
    "name": "mine",
    "step": 12_000,
    "image_size": 16,
    "metrics": {"val/psnr": 26.12346, "val/rfid@105": None},
    "commands": ["vqtrain train name=mine", "vqtrain train resume=auto"],
}


def facts(**changes: str | None) -> Facts:
    known = {"license": None, "dataset": None, "library": "vqtrain", "usage": "import vqtrain"}
    return Facts(**{**known, **changes})


@pytest.fixture
def tokenizer() -> Tokenizer:
    network = {"channels": 8, "block_channels": 4, "num_blocks": 1}
    return Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {**network, "in_channels": 3, "num_downsamplings": 2},
        },
        codebook={"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}},
        decoder={
            "kind": "vqvae",
            "arguments": {**network, "out_channels": 3, "num_upsamplings": 2},
        },
        channels=3,
        training=SUMMARY,
    ).eval()


def test_the_front_matter_has_what_the_hub_reads(tokenizer: Tokenizer) -> None:
    text = card(tokenizer, facts(license="mit", dataset="me/photos", library="transformers"))
    front = yaml.safe_load(text.split("---\n")[1])
    index = front.pop("model-index")
    assert front == {
        "library_name": "transformers",
        "pipeline_tag": "image-feature-extraction",
        "license": "mit",
        "datasets": ["me/photos"],
        "tags": ["image-tokenizer", "vqtrain", "vqvae", "fsq"],
    }
    # As the hub's own library reads it: a metric that is not known is none.
    (result,) = ModelCard(text).data.eval_results
    assert (result.metric_type, result.metric_name, result.metric_value) == (
        "psnr",
        "PSNR",
        26.1235,
    )
    assert (result.dataset_type, result.dataset_name) == ("me/photos", "me/photos, validation")
    assert (result.task_type, index[0]["name"]) == ("image-to-image", "mine")


def test_it_says_what_a_tokenizer_was_made_of(tokenizer: Tokenizer) -> None:
    metrics = {"continuous": {"psnr": 31.5}, "decoder trained": {"psnr": 28.25}}
    made = {"tokenizer": {"path": "kl", "sha256": "0"}, "images": 16, "metrics": metrics}
    tokenizer.training_summary["discretized"] = made
    line = "| discretized | from kl, which is continuous: psnr 31.5000 -> 28.2500 |"
    assert line in card(tokenizer, facts()).splitlines()
    for wrong in ("kl", {"metrics": {}}, {**made, "metrics": {"a": {"psnr": "x"}, "b": {}}}):
        tokenizer.training_summary["discretized"] = wrong
        assert "discretized" not in card(tokenizer, facts())


def test_the_text_says_what_it_is_and_how_it_was_made(tokenizer: Tokenizer) -> None:
    text = card(tokenizer, facts(dataset="photographs of ours"))
    front, lines = yaml.safe_load(text.split("---\n")[1]), text.splitlines()
    assert not {"license", "datasets"} & set(front)
    encoder = sum(parameter.numel() for parameter in tokenizer.encoder.parameters())
    for line in (
        *("# mine", "import vqtrain", "| data | photographs of ours |", "| step | 12,000 |"),
        *("| val/psnr | 26.1235 |", "| val/rfid@105 | not known |", "vqtrain train resume=auto"),
        *(
            "| ids of an image of 16 x 16 px | 4 x 4 |",
            f"| encoder | `vqvae`, {encoder:,} values |",
        ),
    ):
        assert line in lines


def test_a_tokenizer_that_says_nothing_of_itself(tokenizer: Tokenizer) -> None:
    tokenizer.training_summary.clear()
    text = card(tokenizer, facts())
    assert "# An image tokenizer" in text
    assert "model-index" not in text
    assert text.endswith("## Training\n\nNot known.\n\n## Metrics\n\nNot measured.\n")


def test_ids_of_the_first_sample_are_shown(tokenizer: Tokenizer, tmp_path: Path) -> None:
    samples = torch.rand(2, 3, 16, 24) * 2 - 1
    write_card(tokenizer, tmp_path, samples, facts())
    text = (tmp_path / "README.md").read_text()
    assert "The first 4 x 6 of the 4 x 6 ids of the first image above:" in text
    ids = [int(each) for each in text.split("above:")[1].split("```")[1].split()]
    assert ids == tokenizer.encode(samples)[0].flatten().tolist()
    assert (tmp_path / "samples.png").is_file()


def test_of_many_ids_the_first_are_shown() -> None:
    ids = torch.arange(2 * 16 * 16).view(2, 16, 16)
    text = example_of(ids, "image")
    assert "The first 8 x 8 of the 2 x 16 x 16 ids of the first image" in text
    assert "\n  0   1   2   3   4   5   6   7\n 16  17" in text
    assert "The first 1 x 8 of the 32 ids" in example_of(torch.arange(32), "image")
    assert example_of(None, "image") == ""


@pytest.mark.parametrize("license_", ["", "MIT license", "-"])
def test_a_license_is_a_word_of_the_hub(license_: str) -> None:
    with pytest.raises(ConfigError, match="license must be the hub's word for it, such as mit"):
        check_license(license_)
