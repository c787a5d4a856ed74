"""The frozen text model of a CLIP against calls of transformers itself, and in an alignment."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from vqtrain.build import build
from vqtrain.errors import WeightsError
from vqtrain.layers.pretrained_text import PretrainedText
from vqtrain.losses.alignment.contrastive import Contrastive

SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = ["a cat", "dog", "many words that do not fit in"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny CLIP with its tokenizer, as they are published."""
    words = [*LETTERS, *(f"{c}</w>" for c in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    transformers.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(tmp_path)
    first, last = len(words) - 2, len(words) - 1
    text = {"vocab_size": len(words), "num_hidden_layers": 2, "max_position_embeddings": 8}
    text |= {"bos_token_id": first, "eos_token_id": last, "pad_token_id": last}
    vision = {"num_hidden_layers": 1, "image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(
        text_config={**SIZES, **text}, vision_config={**SIZES, **vision}
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    return tmp_path


def test_each_text_is_what_the_package_makes_of_it_alone(folder: Path) -> None:
    state = torch.get_rng_state()
    ours = PretrainedText(model="org/name", given=str(folder)).double().train()
    assert torch.equal(torch.get_rng_state(), state)
    theirs = transformers.CLIPModel.from_pretrained(folder).text_model.double().eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    for text, found in zip(TEXTS, ours(TEXTS), strict=True):
        tokens = words([text], truncation=True, max_length=8, return_tensors="pt")
        expected = theirs(**tokens).pooler_output[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (ours.dim, len(list(ours.parameters())), ours.state_dict()) == (8, 0, {})


def test_an_alignment_trains_its_projections_alone(folder: Path) -> None:
    arguments = {"dim": 4, "text_dim": 8, "text_depth": 1, "text_num_heads": 2, "max_bytes": 8}
    arguments |= {"text_model": "org/name", "weights": {"text": str(folder)}, "aligned_channels": 3}
    loss = build("alignment", "contrastive", arguments)
    assert isinstance(loss, Contrastive)
    loss(torch.randn(3, 3, 2, 2), torch.zeros(3, 3, 8, 8), TEXTS).backward()
    gradients = {name: parameter.grad for name, parameter in loss.named_parameters()}
    own = ["image_projection.weight", "log_scale", "norm.bias", "norm.weight"]
    assert sorted(gradients) == [*own, "text_projection.weight"]
    assert all(value is not None and value.abs().sum() > 0 for value in gradients.values())


def test_missing_damaged_and_other_weights_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(given: str | None) -> str:
        with pytest.raises(WeightsError) as caught:
            PretrainedText(model="org/name", given=given)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "cannot load the text model /none/here: " in refusal("/none/here")
    file = folder / "model.safetensors"
    whole, tensors = file.read_bytes(), load_file(file)
    file.write_bytes(whole[:-100])
    assert f"cannot load the text model {folder}: " in refusal(str(folder))
    kept = {name: value for name, value in tensors.items() if not name.startswith("text_model")}
    save_file(kept, file, metadata={"format": "pt"})
    assert f"{folder} is no CLIP: it lacks" in refusal(str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "to use another copy, set weights.text=FOLDER" in refusal(None)
