"""CLIP's loss against its formula, over ranks, and in runs."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtrain.cli import main
from vqtrain.errors import DataError
from vqtrain.losses.alignment.contrastive import Contrastive

WORDS = ["ship", "a cat", "the dog", "a cat"]


def contrastive() -> Contrastive:
    torch.manual_seed(0)
    sizes = {"dim": 6, "text_dim": 8, "text_depth": 1, "text_num_heads": 2, "max_bytes": 8}
    return Contrastive(**sizes, aligned_channels=3, text_model=None, weights={}).double()


def test_values_and_gradients_are_those_of_the_formula() -> None:
    loss = contrastive()
    with torch.no_grad():
        loss.norm.weight.uniform_(0.5, 2)
        loss.norm.bias.normal_()
    latents = torch.randn(4, 3, 2, 5, dtype=torch.float64, requires_grad=True)
    inputs = [latents, *loss.parameters()]
    found = loss(latents, torch.zeros(4, 3, 8, 8), WORDS)
    gradients = torch.autograd.grad(found, inputs)

    texts = loss.text(WORDS)
    images = []
    for sample in latents:
        mean = sample.sum((1, 2)) / 10
        deviation = (((mean - mean.mean()) ** 2).mean() + 1e-5).sqrt()
        normal = (mean - mean.mean()) / deviation * loss.norm.weight + loss.norm.bias
        vector = loss.image_projection.weight @ normal
        images.append(vector / (vector**2).sum().sqrt())
    total = torch.zeros((), dtype=torch.float64)
    vectors = [loss.text_projection.weight @ text for text in texts]
    vectors = [vector / (vector**2).sum().sqrt() for vector in vectors]
    for i in range(4):
        scale = loss.log_scale.exp()
        row = [(scale * images[i] @ vectors[j]).exp() for j in range(4)]
        column = [(scale * images[j] @ vectors[i]).exp() for j in range(4)]
        total = total - (row[i] / sum(row)).log() / 8 - (column[i] / sum(column)).log() / 8
    torch.testing.assert_close(found, total, rtol=1e-12, atol=0)
    assert math.isclose(loss.log_scale.exp().item(), 1 / 0.07, rel_tol=1e-6)
    for one, other in zip(gradients, torch.autograd.grad(total, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_scale_is_at_most_100() -> None:
    loss = contrastive()
    loss.log_scale.data.fill_(9)
    loss(torch.randn(4, 3, 2, 2, dtype=torch.float64), torch.zeros(4, 3, 8, 8), WORDS).backward()
    assert math.isclose(loss.log_scale.exp().item(), 100)
    assert loss.log_scale.grad is not None


def test_samples_without_texts_are_refused() -> None:
    with pytest.raises(DataError, match=r"Batch\.texts, got 0 for 4 samples"):
        contrastive()(torch.randn(4, 3, 2, 2), torch.zeros(4, 3, 8, 8), [])


# Each rank has its part of a batch of 8; gradients are averaged over ranks, as DDP does.
SCRIPT = """
from vqtrain import distributed
from vqtrain.losses.alignment.contrastive import Contrastive

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
sizes = dict(dim=6, text_dim=8, text_depth=1, text_num_heads=2, max_bytes=12)
loss = Contrastive(**sizes, aligned_channels=3, text_model=None, weights={})
encoder = torch.nn.Conv2d(3, 3, 2, stride=2)
parameters = [*encoder.parameters(), *loss.parameters()]
optimizer = torch.optim.Adam(parameters, lr=1e-2)
images = torch.randn(8, 3, 4, 4)
texts = [f"the text number {2 ** n}"[n % 3 :] for n in range(8)]
own = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
values = []
for step in range(50):
    optimizer.zero_grad()
    found = loss(encoder(images[own] + 0.01 * step), images[own], texts[own])
    found.backward()
    for parameter in parameters:
        parameter.grad = distributed.all_reduce_sum(parameter.grad) / world_size
    optimizer.step()
    values.append(found.detach())
torch.save([torch.stack(values), *(p.detach() for p in parameters)], f"{folder}/{rank}.pt")
"""


@pytest.mark.ddp
def test_two_ranks_equal_one_on_the_joined_batch(run_ranks: Callable[[str, int], Path]) -> None:
    one, two = (run_ranks(SCRIPT, size) for size in (1, 2))
    expected = torch.load(one / "0.pt", weights_only=True)
    assert expected[0][-1] < expected[0][0] - 0.5  # it learns
    for rank in range(2):
        for mine, joined in zip(
            torch.load(two / f"{rank}.pt", weights_only=True), expected, strict=True
        ):
            torch.testing.assert_close(mine, joined, rtol=0, atol=1e-9)


@pytest.fixture
def captioned(tiny: list[str], pictures: Path, tmp_path: Path) -> list[str]:
    """A run on pictures, each with one of four texts next to it."""
    folder = tmp_path / "captioned"
    shutil.copytree(pictures, folder)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.with_suffix(".txt").write_text(WORDS[number % 4])
    words = [word for word in tiny if not word.startswith("data.train=")]
    words += ["loss/alignment=contrastive", "loss.alignment.text_dim=8", "loss.alignment.dim=8"]
    return [*words, f"data.train={folder}", "metrics=[psnr,retrieval]"]


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_unbroken_one(captioned: list[str], tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    more = ["loss.alignment.start_step=1", "loss.alignment.adaptive=true", "trainer.accumulate=2"]
    words = ["train", *captioned, *more]
    assert main([*words, f"run_dir={whole}"]) == 0
    shutil.copytree(whole, resumed)
    for file in (resumed / "checkpoints").iterdir():
        if file.name != "step_00000002.ckpt":
            file.unlink()
    assert main([*words, f"run_dir={resumed}", "resume=auto"]) == 0
    first, ends = (
        torch.load(run / "checkpoints" / name, weights_only=True)["training"]
        for run, name in ((whole, "step_00000002.ckpt"), (whole, "step_00000004.ckpt"))
    )
    again = torch.load(resumed / "checkpoints/step_00000004.ckpt", weights_only=True)["training"]
    assert ends["alignment"].keys() == again["alignment"].keys() != set()
    for part in ("alignment", "weights"):
        for name, value in ends[part].items():
            assert torch.equal(value, again[part][name]), name
    assert not torch.equal(first["alignment"]["log_scale"], ends["alignment"]["log_scale"])
    lines = [(run / "metrics.jsonl").read_text() for run in (whole, resumed)]
    assert lines[0] == lines[1]
    last = json.loads(lines[0].splitlines()[-1])
    assert last["train/generator/alignment"] > 0
    ways = [f"retrieval_{way}@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5)]
    assert last["val/retrieval"] == pytest.approx(sum(last[f"val/{way}"] for way in ways) / 4)
    assert last["val/retrieval_image_to_text@5"] == 100  # of three texts


def test_what_lacks_texts_or_a_space_is_one_line(
    tiny: list[str], captioned: list[str], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*words: str) -> str:
        assert main([*words]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "data.train: 32 of 32 images have no .txt, the first is " in refusal(
        "train", *captioned, f"data.train={pictures}"
    )
    assert "retrieval needs a space of images and texts, which loss/alignment=c" in refusal(
        "train", *tiny, "metrics=[psnr,retrieval]"
    )
    assert "metrics: retrieval is for vqtrain train alone" in refusal(
        "evaluate", "tokenizer=none", f"images={pictures}", "metrics=[retrieval]"
    )
