"""``vqtrain evaluate`` as its users meet it."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from vqtrain import Tokenizer
from vqtrain.cli import main
from vqtrain.data.sources.find import training_and_validation
from vqtrain.evaluation import models
from vqtrain.evaluation.results import read_evaluation
from vqtrain.metrics.psnr import PSNR
from vqtrain.reports.blocks import Players
from vqtrain.reports.evaluation import evaluation_page

NETWORK = {"channels": 8, "block_channels": 4, "num_blocks": 1}
FSQ = {"kind": "fsq", "arguments": {"size": 16, "levels": None, "eps": 1e-3}}
KL = {"kind": "kl", "arguments": {"size": None, "dim": 4, "kl_weight": 1e-6}}
RunCommand = Callable[..., subprocess.CompletedProcess[str]]


def save_tokenizer(folder: str, codebook: dict[str, object], image_size: object = 16) -> Tokenizer:
    tokenizer = Tokenizer(
        encoder={
            "kind": "vqvae",
            "arguments": {**NETWORK, "in_channels": 3, "num_downsamplings": 2},
        },
        codebook=codebook,
        decoder={
            "kind": "vqvae",
            "arguments": {**NETWORK, "out_channels": 3, "num_upsamplings": 2},
        },
        channels=3,
        training={"image_size": image_size},
    ).eval()
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture
def words(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line that takes a second, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    save_tokenizer("own", FSQ)
    # Of 48 pictures, six to make it quick.
    return [
        *("evaluate", "tokenizer=own", f"images={pictures}/picture-0[0-5].png", "device=cpu"),
        *("num_workers=0", "metrics=[psnr,ssim]", "cost=false", "worst=2"),
    ]


def save_sequence_tokenizer(folder: str, nested_dropout: str = "uniform") -> Tokenizer:
    network = {"patch_size": 8, "num_tokens": 8, "dim": 8, "depth": 1, "num_heads": 2}
    network |= {"sample_size": [16, 16], "attention": "self", "positions": "learned"}
    more = {"out_channels": 3, "head": "linear", "nested_dropout": nested_dropout}
    tokenizer = Tokenizer(
        encoder={
            "kind": "latent_query",
            "arguments": {**network, "in_channels": 3, "transpose": True},
        },
        codebook=FSQ,
        decoder={"kind": "latent_query", "arguments": {**network, **more}},
        channels=3,
        training={"image_size": 16},
    ).eval()
    with torch.no_grad():
        tokenizer.project_in.weight.mul_(30)  # untrained, it would use one id alone
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_run(folder: str, **data: object) -> None:
    save_tokenizer(f"{folder}/tokenizer", FSQ)
    known = {"train": "demo", "val": "auto", "crop": "native", **data}
    Path(folder, "config.yaml").write_text(json.dumps({"data": known}))


def evaluation(folder: str = "evaluation") -> dict[str, object]:
    found: dict[str, object] = json.loads(Path(folder, "evaluation.json").read_text())
    return found


def test_figures_are_printed_and_written(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "batch_size=4", "first=3"]) == 0
    printed = capsys.readouterr().out
    (entry,) = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    values = parquet.read_table("evaluation/per_image.parquet").to_pydict()
    assert values["key"] == [f"picture-{number:02d}" for number in range(6)]
    assert entry["metrics"]["psnr"] == pytest.approx(np.mean(values["psnr"]), abs=1e-4)
    assert f"{entry['metrics']['psnr']:.4f}" in printed
    assert list(entry["baselines"]) == ["jpeg", "webp", "down_up"]
    assert entry["baselines"]["down_up"]["bits_per_pixel"] == 1.5  # 24 bits for 4 x 4 px
    assert entry["bits_per_pixel"] == round(np.log2(15) / 16, 4)  # fsq of 3 x 5
    assert entry["protocols"]["psnr"]["crop"] == "resize to 16 x 16 px"
    assert entry["codebook"]["tokens"] == 6 * 16
    assert entry["codebook"]["grids"][0]["shape"] == [4, 4]
    assert read_evaluation(Path("evaluation")).tokenizers[0].codebook.grids[0].left is not None
    assert "reading" in printed
    assert "written     evaluation" in printed
    assert Path("evaluation/table.md").read_text().startswith("| tokenizer |")
    order = np.argsort(values["psnr"])
    drawn = (("worst", order[:2]), ("best", order[::-1][:2]), ("first", range(3)))
    for word, places in drawn:
        names = sorted(file.name for file in Path("evaluation", word).iterdir())
        assert names == [f"{n:02d}_{values['key'][place]}.png" for n, place in enumerate(places, 1)]
        with Image.open(Path("evaluation", word, names[0])) as picture:
            assert picture.size == (3 * 20 + 4, 16 + 4 + 20)


def test_sounds_have_metrics_of_their_own_and_a_rate_in_time(
    hums: Path,
    sound_tokenizer: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", f"tokenizer={sound_tokenizer}", f"sounds={hums}", "cost=false"]
    assert main([*words, "worst=2", "max_bad_fraction=0.5", "num_workers=0"]) == 0
    (entry,) = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    assert list(entry["metrics"]) == ["si_sdr", "stft_distance", "mel_distance"]
    values = parquet.read_table("evaluation/per_image.parquet").to_pydict()
    assert entry["metrics"]["si_sdr"] == pytest.approx(np.mean(values["si_sdr"]), abs=1e-4)
    assert (entry["image_size"], entry["count"], entry["baselines"]) == ([1600], 6, {})
    # 64 ids of two codebooks for 4 values are 3 bits a value, of which a second has 8,000.
    assert (entry["bits_per_pixel"], entry["kbit_per_second"]) == (3, 24)
    assert entry["protocols"]["si_sdr"]["crop"] == "1,600 values"
    printed = capsys.readouterr().out
    assert "size  tokens  bits/value  kbit/s" in printed
    assert "left out" not in printed
    first = f"01_{values['key'][int(np.argmin(values['si_sdr']))]}"
    ends = ("original.wav", "png", "reconstruction.wav")
    names = sorted(file.name for file in Path("evaluation/worst").iterdir())
    assert names[:3] == [f"{first}.{end}" for end in ends]
    players = [
        block
        for section in evaluation_page(Path("evaluation")).sections
        for block in section.blocks
        if isinstance(block, Players)
    ]
    assert [(each.label, len(each.items)) for each in players] == [
        ("Worst sounds", 2),
        ("Best sounds", 2),
    ]


def test_clips_are_compared_with_their_first_frames(
    ramps: Path, clip_tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", f"tokenizer={clip_tokenizer}", f"videos={ramps}", "num_workers=0"]
    assert main([*words, "worst=1", "metrics=[psnr]", "cost=false"]) == 0
    (entry,) = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    # 64 ids for 2 x 4 x 4 px, of which there are 16 x 16 at 8 frames a second.
    assert (entry["image_size"], entry["bits_per_pixel"]) == ([4, 16, 16], 0.1875)
    assert entry["kbit_per_second"] == pytest.approx(0.1875 * 16 * 16 * 8 / 1000)
    assert list(entry["baselines"]) == ["first_frame"]
    baseline = entry["baselines"]["first_frame"]
    assert baseline["bits_per_pixel"] == 24 / 4
    first, *others = baseline["by_frame"]["psnr"]
    assert first == 100 > max(others)  # it is the frame itself
    assert baseline["metrics"]["psnr"] == pytest.approx((first + sum(others)) / 4, abs=1e-3)
    (folder,) = Path("evaluation/worst").glob("*.mp4")
    assert folder.with_suffix(".png").is_file()
    sections = {each.key: each for each in evaluation_page(Path("evaluation")).sections}
    kinds = [(block.kind, block.label) for block in sections["examples"].blocks]
    assert kinds == [
        *(("viewer", "Worst clips"), ("players", "Worst clips")),
        *(("viewer", "Best clips"), ("players", "Best clips")),
    ]


def test_where_lower_is_better_the_worst_is_the_highest(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([*words, "baselines=false", "out=higher"]) == 0
    monkeypatch.setattr(PSNR, "higher_is_better", False)
    assert main([*words, "baselines=false", "out=lower"]) == 0
    for word, other in (("worst", "best"), ("best", "worst")):
        names = [
            sorted(file.name for file in Path(*folder).iterdir())
            for folder in (("higher", word), ("lower", other))
        ]
        assert names[0] == names[1]


def test_several_tokenizers_are_compared_in_one_table(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ROUND_S", "WARM_UP_S"):
        monkeypatch.setattr(f"vqtrain.evaluation.cost.{name}", 0.0)
    save_tokenizer("continuous", KL, image_size=[16, 24])
    assert main([*words, "tokenizer=own,continuous", "cost=true", "batch_size=2"]) == 0
    own, continuous = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    assert (own["name"], continuous["name"]) == ("own", "continuous")
    assert (continuous["image_size"], continuous["bits_per_pixel"]) == ([16, 24], None)
    assert (continuous["codebook"], list(continuous["baselines"])) == (None, ["down_up"])
    assert Path("evaluation", own["per_image"]).is_file()
    assert own["per_image"] == "1_own/per_image.parquet"
    assert Path("evaluation/2_continuous/worst").is_dir()
    assert [timing["batch_size"] for timing in own["cost"]["timings"]] == [1, 1, 2, 2]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "own: 2 of 6 images are done"
    assert lines[1] == "own: 6 of 6 images are done"
    assert lines[3] == "continuous: 6 of 6 images are done"
    heads = [line.split()[0] for line in lines[5:11]]
    assert heads == ["own", "jpeg", "webp", "down_up", "continuous", "down_up"]


@torch.no_grad()
def test_the_first_tokens_of_a_sequence_have_a_row_for_each_number(
    words: list[str], pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = save_sequence_tokenizer("own")
    assert main([*words, "num_tokens=2,8", "crop=native"]) == 0
    two, eight = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    assert (two["name"], eight["name"]) == ("own (2 tokens)", "own (8 tokens)")
    assert (two["tokens_per_image"], eight["tokens_per_image"]) == (2, 8)
    assert two["bits_per_pixel"] == round(2 * np.log2(15) / 256, 4)
    assert (two["codebook"]["tokens"], eight["codebook"]["tokens"]) == (6 * 2, 6 * 8)
    for entry, count in ((two, 2), (eight, 8)):
        values = parquet.read_table(Path("evaluation", entry["per_image"])).to_pydict()
        for key, value in zip(values["key"], values["psnr"], strict=True):
            with Image.open(pictures / f"{key}.png") as picture:
                pixels = np.asarray(picture.convert("RGB"))
            top, left = ((side - 16) // 2 for side in pixels.shape[:2])
            original = pixels[top : top + 16, left : left + 16]
            token_ids = tokenizer.encode(tokenizer.preprocess(original))[:, :count]
            made = tokenizer.to_pixels(tokenizer.decode(token_ids))[0].permute(1, 2, 0).numpy()
            error = np.mean((made.astype(float) - original) ** 2)
            assert value == pytest.approx(10 * np.log10(255**2 / error), abs=1e-6)
    assert two["metrics"]["psnr"] != eight["metrics"]["psnr"]
    lines = capsys.readouterr().out.splitlines()
    assert [line[:14] for line in lines if line.startswith("own (")][-2:] == [
        *("own (2 tokens)", "own (8 tokens)"),
    ]
    assert Path("evaluation/1_own-2-tokens/worst").is_dir()
    save_sequence_tokenizer("whole", nested_dropout="none")
    for name, count, message in (
        ("own", 9, "num_tokens=9, but own has 8 tokens"),
        ("whole", 2, "num_tokens=2 does not fit whole: the decoder takes 8 latents"),
    ):
        assert main([*words, f"tokenizer={name}", f"num_tokens={count}", "out=none"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not Path("none").exists()


def test_what_images_do_not_allow_is_left_out_and_said_unless_it_was_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"names": ["psnr", "ssim", "ms_ssim"]}
    monkeypatch.setattr("vqtrain.app.parts.metrics.read_choice", lambda *_: names)
    assert main([*words, "metrics=null", "baselines=false", "worst=0"]) == 0
    printed = capsys.readouterr().out
    assert "left out: ms_ssim needs images of at least 176 px, these have 16" in printed
    (entry,) = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    assert list(entry["metrics"]) == ["psnr", "ssim"]
    assert entry["baselines"] == {}
    assert sorted(file.name for file in Path("evaluation").iterdir()) == [
        *("codebook.png", "evaluation.json", "per_image.parquet", "table.md"),
    ]


def test_the_crop_is_that_of_the_protocol_unless_one_is_given(words: list[str]) -> None:
    for given, used in ((["protocol=adm"], "adm"), (["protocol=adm", "crop=native"], "native")):
        assert main([*words, *given, f"out={used}", "baselines=false"]) == 0
        assert evaluation(used)["settings"]["crop"] == used  # type: ignore[index]  # plain data


def test_missing_weights_are_one_line_before_anything_is_written(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_arguments: object, **_options: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    assert main([*words, "metrics=[psnr,{kind:lpips,network:vgg}]"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("vqtrain: cannot download vgg16-397923af.pth from https://")
    assert "weights.vgg=PATH; metrics=[psnr] needs no weights" in last
    assert not Path("evaluation").exists()
    # Those that nobody has named are left out, and the others measured.
    names = {"names": ["psnr", {"kind": "lpips", "network": "vgg"}]}
    monkeypatch.setattr("vqtrain.app.parts.metrics.read_choice", lambda *_: names)
    monkeypatch.setattr(
        "vqtrain.app.evaluate.choose_metrics", lambda metrics, *_, **__: (metrics, [])
    )
    assert main([*words, "metrics=null", "baselines=false", "worst=0"]) == 0
    assert "left out: lpips_vgg: cannot download vgg16-397923af.pth" in capsys.readouterr().out
    (entry,) = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    assert list(entry["metrics"]) == list(entry["protocols"]) == ["psnr"]
    # A file that is named must be there.
    named = ["metrics=null", "weights.vgg=nowhere.pth", "out=other"]
    assert main([*words, *named]) == 2
    assert "weights.vgg must be a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["tokenizer="], "name the tokenizer: vqtrain evaluate tokenizer=PATH"),
        (["images="], "name the images"),
        (["tokenizer=own,own"], "tokenizer=own is named twice"),
        (["tokenizer=nothing"], "nothing"),
        (["metrics=[pnsr]"], "unknown metric 'pnsr', did you mean 'psnr'?"),
        (["metrics=[]"], "metrics must name at least one, such as metrics=[psnr]"),
        (["metrics=psnr"], "metrics are a list: write metrics=[psnr]"),
        (["metrics=some"], "unknown metrics 'some', valid are: all, basic, full"),
        (["images=own/photo", "metrics=[fid]", "weights.inception=none"], "photo does not exist"),
        (["own"], "cannot read 'own': write key=value, such as tokenizer=own"),
        (["metrics=[ms_ssim]"], "ms_ssim needs images of at least 176 px, these have 16"),
        (["protocol=tf"], "protocol must be one of torch_fidelity, adm, pytorch_fid, clean_fid"),
        (["worst=-1"], "worst must be at least 0, got -1"),
        (["devices=0"], "devices must be at least 1, got 0"),
        (["images=own", "out=own/x"], "out=own/x lies inside images=own"),
        (["out=own"], "out=own exists already"),
        (["out=own/model.safetensors/x"], "cannot write own/model.safetensors/x"),
        (["image_size=18"], "18 x 18 does not divide into tokens"),
        (
            ["crop=middle"],
            "maskbit, ldm, got 'middle'",
        ),
        (["cost=2"], "cost must be true or false, got 2"),
        (["num_tokens=4"], "is for sequences of tokens, but own has a grid of 4 x 4"),
        (["num_tokens=4,4"], "num_tokens must be different numbers of at least 1, got [4, 4]"),
        (["num_tokens=0"], "num_tokens must be different numbers of at least 1, got 0"),
        (["weights.vg=x"], "did you mean 'weights.vgg'?"),
        (["worts=2"], "did you mean 'worst'?"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *more]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not Path("evaluation").exists()


def test_devices_are_not_for_a_process_that_is_one_of_several(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main([*words, "devices=2"]) == 2
    assert "devices=2, but this process is one of several" in capsys.readouterr().err


def test_a_failure_leaves_the_tokenizers_before_it_and_nothing_else(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    broken = save_tokenizer("broken", FSQ)
    with torch.no_grad():
        broken.project_in.bias.fill_(torch.nan)
    broken.save_pretrained("broken")
    assert main([*words, "tokenizer=broken"]) == 1
    assert not Path("evaluation").exists()
    assert main([*words, 'tokenizer=[own,"broken"]']) == 1
    assert capsys.readouterr().err.count("\n") == 2
    (entry,) = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    assert entry["name"] == "own"
    assert Path("evaluation/1_own/per_image.parquet").is_file()


def test_too_little_memory_is_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(models, "measure", full)
    assert main(words) == 1
    assert "too little memory for batch_size=16: give a smaller one" in capsys.readouterr().err
    assert not Path("evaluation").exists()


def test_help_shows_keys_and_two_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    printed = capsys.readouterr().out
    for key in ("tokenizer", "images", "metrics", "protocol", "weights.clean_fid", "devices"):
        assert f"  {key} " in printed
    assert printed.count("\n  vqtrain evaluate tokenizer=") == 2


@pytest.mark.ddp
def test_two_processes_write_what_one_writes(words: list[str], vqtrain: RunCommand) -> None:
    assert main([*words, "batch_size=4"]) == 0
    found = vqtrain(*words, "batch_size=4", "devices=2", "out=both")
    assert found.returncode == 0, found.stderr
    assert "written     both" in found.stdout
    tables = [Path(folder, "table.md").read_text() for folder in ("evaluation", "both")]
    assert tables[0] == tables[1]
    bytes_of = [Path(f, "per_image.parquet").read_bytes() for f in ("evaluation", "both")]
    assert bytes_of[0] == bytes_of[1]
    assert evaluation("both")["settings"]["processes"] == 2  # type: ignore[index]  # plain data
    wrong = vqtrain(*words, "devices=2", "out=both")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "vqtrain: out=both exists already: give a folder that does not\n"


@pytest.mark.slow
def test_sigterm_ends_it_in_order(
    words: list[str], start_vqtrain: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = start_vqtrain(*words, "cost=true", "out=stopped")
    while not Path("stopped", "evaluation.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.5)  # then it measures the cost: memory by the profiler, after 0.6 s of warm-up
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Traceback" not in error
    assert "gpuGetDeviceCount" not in error  # of torch's profiler, where there is no GPU


@pytest.mark.slow
def test_all_metrics_with_weights_from_files(
    words: list[str],
    pictures: Path,
    classifier_file: Callable[[str], Path],
    inception_file: Path,
) -> None:
    files = [f"weights.{name}={classifier_file(name)}" for name in ("vgg", "alex")]
    files += [f"weights.inception={inception_file}", f"images={pictures}/picture-0[0-2].png"]
    more = ["metrics=null", "image_size=176", "baselines=false", "worst=1", *files]
    assert main([*words, *more]) == 0
    (entry,) = evaluation()["tokenizers"]  # type: ignore[misc]  # plain data
    assert list(entry["metrics"]) == [
        *("psnr", "ssim", "chroma_error", "ms_ssim", "lpips_alex", "lpips_vgg", "rfid@3"),
    ]
    assert entry["metrics"]["rfid@3"] > 0
    assert entry["protocols"]["rfid@3"]["weights"] == "inception.pth, not the published file"
    assert list(entry["seconds"]) == [
        *("hashing", "reading", "tokenizer", "codes", "psnr", "ssim", "chroma_error", "ms_ssim"),
        *("lpips_alex", "lpips_vgg", "rfid"),
    ]


def test_too_many_damaged_pictures_are_a_failure_without_figures(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 0, 0)).save(folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "worse.png").write_bytes(b"none either")
    typed = [word for word in words if not word.startswith("images=")]
    typed += [f"images={folder}", "metrics=[psnr]", "cost=false", "baselines=false", "out=mixed1"]
    assert main(typed) == 1
    said = capsys.readouterr().err
    assert "2 of 6 images cannot be read, more than max_bad_fraction=0.01 allows" in said
    assert not Path("mixed1").exists()
    assert main([*typed, "max_bad_fraction=0.5"]) == 0
    table = Path("mixed1/table.md").read_text()
    assert "- 4 images; 2 skipped" in table
    # What indexing finds damaged is said, too, but is no image that could not be read.
    (tmp_path / "cut.tar").write_bytes(b"x" * 600)
    capsys.readouterr()
    both = f"images={tmp_path}/{{mixed,cut.tar}}"
    assert main([*typed[:-1], both, "max_bad_fraction=0.34", "out=mixed2"]) == 0
    (entry,) = evaluation("mixed2")["tokenizers"]  # type: ignore[misc]  # plain data
    assert [fault["shard"] for fault in entry["skipped"]] == [
        str(tmp_path / "cut.tar"),
        str(folder / "bad.png"),
        str(folder / "worse.png"),
    ]
    printed = capsys.readouterr().out
    assert f"skipped     3\n{'':<12}{tmp_path / 'cut.tar'}: it is not a tar (" in printed


def test_without_images_those_are_measured_that_the_run_has_validated_on(
    words: list[str], pictures: Path
) -> None:
    save_run("run", train=str(pictures))
    known = [word for word in words if not word.startswith(("tokenizer=", "images="))]
    assert main([*known, "tokenizer=run"]) == 0
    found = evaluation()
    _, held_out = training_and_validation(str(pictures), "auto")
    assert found["images"] == {
        "source": f"validation images of data.train={pictures} data.val=auto",
        "count": len(held_out),
        "digest": held_out.digest,
    }
    assert len(held_out) < 48
    assert found["settings"]["crop"] == "native"  # type: ignore[index]  # plain data


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        ("own", "they are known of run directories alone"),
        ("run,own", "they are known of run directories alone"),
        ("nowhere", "nowhere"),
        ("run,own/../nowhere", "nowhere"),
        ("run,other", "these runs have validated on different ones"),
    ],
)
def test_images_that_no_run_names_are_asked_for(
    words: list[str], capsys: pytest.CaptureFixture[str], tokenizer: str, message: str
) -> None:
    save_run("run")
    save_run("other", val="elsewhere")
    known = [word for word in words if not word.startswith(("tokenizer=", "images="))]
    assert main([*known, f"tokenizer={tokenizer}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vqtrain: name the images: ") == ("nowhere" not in tokenizer)
    assert message in line
    assert not Path("evaluation").exists()
