"""What an evaluation writes: figures as they were measured, in every form."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import parquet
from rich.console import Console

from vqtrain.data.faults import Fault
from vqtrain.evaluation.cost import Cost, Timing
from vqtrain.evaluation.measure import Measured, Result
from vqtrain.evaluation.results import read_evaluation, read_image_values
from vqtrain.evaluation.tables import (
    Entry,
    Report,
    columns_and_rows,
    cost_lines,
    markdown,
    save,
    show,
    to_plain,
    write_per_image,
)

OWN = Result(values={"psnr": [20.0, 25.00004], "ssim": [0.5, 0.75]}, distances={"rfid@2": 12.34567})
JPEG = Result(
    values={"psnr": [18.0, 20.0], "ssim": [0.25, 0.5], "bits_per_pixel": [0.5, 0.75]},
    distances={"rfid@2": math.nan},
)
MEASURED = Measured(
    image_ids=[0, 2],
    tokenizer=OWN,
    baselines={"jpeg": JPEG},
    codebook={
        "size": 4,
        "usage": 0.75,
        "perplexity": 2.828427,
        "entropy_bits": 1.5,
        "histogram": [[2, 1, 1, 0]],
    },
    faults=[Fault(shard="folder/bad.png", key="bad", reason="the file is empty")],
    seconds={"reading": 0.123456, "tokenizer": 1.0},
)
ENTRY = Entry(
    name="runs/a|b",
    folder=".",
    image_size=16,
    tokens_per_image=64,
    bits_per_pixel=0.5,
    kbit_per_second=None,
    keys=["first", "third"],
    measured=MEASURED,
    rules={
        "psnr": {"dtype": "float64"},
        "rfid@2": {"weights": "net.pth", "weights_sha256": "0123456789abcdef"},
    },
    cost=None,
)
REPORT = Report(images={"source": "demo", "count": 3}, settings={"crop": "resize"}, entries=[ENTRY])
COST = Cost(
    device="cpu",
    image_size=16,
    parameters={"encoder": 1200, "codebook_entries": 64},
    weights_bytes=5056,
    encode_flops=2_500_000,
    decode_flops=3_000_000,
    timings=(
        Timing(
            operation="encode",
            batch_size=1,
            median_ms=2.0,
            p95_ms=3.0,
            images_per_s=450.0,
            calls=900,
            spread=0.25,
            is_steady=False,
            change=0.5,
            memory_bytes=2**21,
        ),
    ),
    too_large=(64,),
    is_steady=False,
)


def test_what_a_tokenizer_was_made_of_is_below_the_table() -> None:
    entry = replace(ENTRY, origin="from kl, which is continuous: psnr 31.5000 -> 28.2500")
    report = replace(REPORT, entries=[entry])
    console = Console(file=io.StringIO(), width=200)
    show(report, console)
    assert isinstance(console.file, io.StringIO)
    assert f"\ndiscretized {entry.origin}\n" in console.file.getvalue()
    assert f"\n- discretized {entry.origin}\n" in markdown(report)


def test_values_of_frames_are_written_and_read(tmp_path: Path) -> None:
    clips = replace(OWN, frames={"psnr": [21.00004, math.nan]})
    others = {"first_frame": replace(JPEG, frames={"psnr": [100.0, 18.0]})}
    measured = replace(MEASURED, tokenizer=clips, baselines=others)
    entry = replace(ENTRY, measured=measured)
    save(replace(REPORT, entries=[entry, ENTRY]), tmp_path)
    found, images = read_evaluation(tmp_path).tokenizers
    assert found.by_frame == {"psnr": [21.0, None]}
    assert found.baselines["first_frame"].by_frame == {"psnr": [100.0, 18.0]}
    assert images.by_frame == images.baselines["jpeg"].by_frame == {}


def test_json_holds_all_figures_with_four_decimals(tmp_path: Path) -> None:
    save(REPORT, tmp_path)
    text = (tmp_path / "evaluation.json").read_text()
    (entry,) = json.loads(text)["tokenizers"]
    # (20 + 25.00004) / 2 = 22.50002, and (0.5 + 0.75) / 2 = 0.625.
    assert entry["metrics"] == {"psnr": 22.5, "ssim": 0.625, "rfid@2": 12.3457}
    assert entry["baselines"] == {
        "jpeg": {
            "bits_per_pixel": 0.625,
            "metrics": {"psnr": 19.0, "ssim": 0.375, "rfid@2": None},
        }
    }
    assert entry["protocols"]["rfid@2"] == {
        "weights": "net.pth",
        "weights_sha256": "0123456789abcdef",
    }
    assert entry["codebook"] == {**MEASURED.codebook, "perplexity": 2.8284}  # type: ignore[dict-item]  # it has one
    assert "[ 2, 1, 1, 0 ]" in text  # on one line
    assert entry["seconds"] == {"reading": 0.1235, "tokenizer": 1.0}
    assert entry["skipped"] == [
        {"shard": "folder/bad.png", "key": "bad", "reason": "the file is empty"}
    ]
    assert (entry["count"], entry["tokens_per_image"], entry["cost"]) == (2, 64, None)
    assert entry["per_image"] == "per_image.parquet"


def test_what_is_written_comes_back_as_types(tmp_path: Path) -> None:
    save(replace(REPORT, entries=[replace(ENTRY, cost=COST)]), tmp_path)
    write_per_image(ENTRY, tmp_path)
    (found,) = read_evaluation(tmp_path).tokenizers
    assert found.metrics == {"psnr": 22.5, "ssim": 0.625, "rfid@2": 12.3457}
    assert found.baselines["jpeg"].metrics["rfid@2"] is None
    assert (found.cost, found.skipped) == (COST, MEASURED.faults)
    assert found.codebook is not None
    assert found.codebook.figures == {"usage": 0.75, "perplexity": 2.8284, "entropy_bits": 1.5}
    values = read_image_values(tmp_path / found.per_image)
    assert values.keys == ["first", "third"]
    assert values.values["jpeg/ssim"].tolist() == [0.25, 0.5]


def test_json_holds_the_cost_as_plain_numbers() -> None:
    plain = to_plain(replace(REPORT, entries=[replace(ENTRY, cost=COST)]))
    (entry,) = plain["tokenizers"]  # type: ignore[misc]  # plain data
    assert entry["cost"]["parameters"] == {"encoder": 1200, "codebook_entries": 64}
    assert entry["cost"]["timings"][0]["median_ms"] == 2.0


def test_parquet_holds_every_value_of_every_image(tmp_path: Path) -> None:
    named_in_bytes = b"\xff.png".decode("utf-8", "surrogateescape")
    write_per_image(replace(ENTRY, keys=["first", named_in_bytes]), tmp_path)
    assert parquet.read_table(tmp_path / "per_image.parquet").to_pydict() == {
        "key": ["first", "\ufffd.png"],
        "psnr": [20.0, 25.00004],
        "ssim": [0.5, 0.75],
        "jpeg/psnr": [18.0, 20.0],
        "jpeg/ssim": [0.25, 0.5],
        "jpeg/bits_per_pixel": [0.5, 0.75],
    }


def test_markdown_is_a_table_with_notes() -> None:
    lines = markdown(REPORT).splitlines()
    assert lines[:4] == [
        "| tokenizer | px | tokens | bits/px | psnr | ssim | rfid@2 | usage | perplexity |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        r"| runs/a\|b | 16 | 64 | 0.5000 | 22.5000 | 0.6250 | 12.3457 | 0.7500 | 2.8284 |",
        "| jpeg |  | - | 0.6250 | 19.0000 | 0.3750 | - | - | - |",
    ]
    assert "- rfid@2: weights net.pth; weights_sha256 0123456789abcdef" in lines


def test_several_tokenizers_have_a_row_each_under_the_same_heads() -> None:
    under_adm = replace(OWN, distances={"rfid_adm@2": 12.34567})
    plain = replace(MEASURED, codebook=None, baselines={}, tokenizer=under_adm)
    continuous = replace(ENTRY, name="kl", tokens_per_image=0, bits_per_pixel=None, measured=plain)
    heads, rows = columns_and_rows([continuous, ENTRY])
    assert heads == [
        *("", "px", "tokens", "bits/px", "psnr", "ssim", "rfid_adm@2", "rfid@2"),
        *("usage", "perplexity"),
    ]
    assert rows[0] == ["kl", "16", "-", "-", "22.5000", "0.6250", "12.3457", "-", "-", "-"]
    assert [row[0] for row in rows] == ["kl", "runs/a|b", "  jpeg"]
    assert "\nkl:\n" in markdown(replace(REPORT, entries=[continuous, ENTRY]))


def test_the_screen_says_what_a_number_is_what_it_took_and_what_was_passed_over() -> None:
    file = io.StringIO()
    show(replace(REPORT, entries=[replace(ENTRY, cost=COST)]), Console(file=file, width=200))
    printed = file.getvalue()
    assert "rfid@2      weights net.pth; weights_sha256 0123456789ab\n" in printed
    assert "time        reading 0.1 s, tokenizer 1.0 s\n" in printed
    assert "skipped     1\n            bad: the file is empty\n" in printed
    assert "runs/a|b  16      64   0.5000  22.5000  0.6250" in printed


def test_a_cost_that_does_not_repeat_is_said() -> None:
    assert list(cost_lines(COST)) == [
        "parameters: encoder 1,200, codebook_entries 64",
        (
            "one image of 16 x 16 px: encode 0.003 GFLOPs, decode 0.003 GFLOPs; "
            "a multiply-add counts 2"
        ),
        (
            "encode 1 on cpu: 2.00 ms, 95 % within 3.00 ms, 450.0 images/s, 2.0 MiB; noisy: "
            "two rounds differ by 25%; not repeated: the last run here differs by 50%"
        ),
        "the speed did not repeat: do not compare it with that of another run",
        "batch size 64 did not fit into the memory of cpu",
    ]


def test_means_are_rounded_once() -> None:
    values = [0.1] * 10
    assert Result(values={"psnr": values}, distances={}).means["psnr"] == 0.1
    assert sum(values) / 10 != pytest.approx(0.1, abs=0)
