"""From the command line to plain data: literal paths, groups, the user's own configs, mistakes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from vqtrain.app.parts.choices import metric_entries
from vqtrain.app.parts.compose import (
    compose,
    flatten,
    group_choices,
    is_group_choice,
    read_command_line,
)
from vqtrain.build import configs_folder
from vqtrain.cli import main
from vqtrain.errors import ConfigError

CONFIGS = Path(__file__).parents[3] / "configs"
# Found by os.walk, as an independent reference: what is composed is found by pathlib.
FILES = sorted(
    Path(parent, name).relative_to(CONFIGS).with_suffix("").as_posix()
    for parent, _, names in os.walk(CONFIGS)
    for name in names
    if name.endswith(".yaml")
    and Path(parent).name not in ("command", "format", "launcher", "metric")
)
CHOICES = [file.rpartition("/") for file in FILES if "/" in file]


def composed(*words: str) -> dict[str, Any]:
    return compose("train", read_command_line(words))


PATHS = [
    "shards-{000..099}.tar",
    "~/photographs",
    "~",
    "/a folder/with spaces",
    "key=value",
    "a=b=c",
    "it's",
    '"quoted"',
    "#1",
    "a # no comment",
    "/data/[raw]/x",
    "photo[0-9].png",
    "${seed}",
    "${oc.env:HOME}",
    "\\n",
    "a,b",
    "choice(a,b)",
    "1",
    "null",
    "true",
    "???",
    "@file",
    "caf\u00e9 \u96ea",
    "s3://bucket/{00..99}.tar?x=1&y=2",
    "pipe:cat a.tar | head",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", ["data.train", "data.val"])
def test_a_path_is_taken_as_it_was_typed(key: str, path: str) -> None:
    assert flatten(composed(f"{key}={path}"))[key] == path


def test_every_path_key_is_literal() -> None:
    words = [f"{key}=~/a b={{1..2}}" for key in ("run_dir", "resume", "init_from")]
    config = compose("train", read_command_line(words), is_whole=False)
    assert {config[key] for key in ("run_dir", "resume", "init_from")} == {"~/a b={1..2}"}


def test_a_list_of_sources_is_a_list() -> None:
    config = composed("data.train=[/a/b,'c d/{0..9}.tar',demo]", "data.val=['${absent}']")
    assert config["data"]["train"] == ["/a/b", "c d/{0..9}.tar", "demo"]
    assert config["data"]["val"] == ["${absent}"]


def test_a_path_in_a_config_of_the_users_is_literal_too(tmp_path: Path) -> None:
    folder = tmp_path / "o'brien \"[#1]\" = {a,b} ${x} \\'\\"
    (folder / "data").mkdir(parents=True)
    text = (CONFIGS / "data/image.yaml").read_text()
    (folder / "data/mine.yaml").write_text(text.replace("train: demo", "train: '${absent} {0..9}'"))
    config = composed(f"--config-dir={folder}", "data=mine")
    assert config["data"]["train"] == "${absent} {0..9}"


def test_other_values_are_interpolated() -> None:
    assert composed("name=run-${seed}", "seed=7")["name"] == "run-7"


@pytest.mark.parametrize(
    "name", ["20240501", "1e5", "007", "gr\u00f6\u00dfe", "a b", "true", "x=1"]
)
def test_a_name_is_text_as_it_was_typed(name: str) -> None:
    assert composed(f"name={name}")["name"] == name
    assert composed(f"name='{name}'")["name"] == name


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("trainer.max_steps=1e3", 1000),
        ("trainer.max_steps=1.5e+3", 1500),
        ("trainer.max_steps=1.25e1", 12.5),
        ("trainer.max_steps=1e-3", 0.001),
    ],
)
def test_a_whole_number_may_have_an_exponent(word: str, value: float) -> None:
    found = composed(word)["trainer"]["max_steps"]
    assert (found, type(found)) == (value, type(value))


def test_the_last_word_counts() -> None:
    words = ["data.train=a", "codebook.size=2", "data.train=b", "codebook.size=4"]
    config = composed(*words)
    assert (config["data"]["train"], config["codebook"]["size"]) == ("b", 4)
    assert composed("data.train=a", "data.train=[b]")["data"]["train"] == ["b"]
    assert composed("data.train=[b]", "data.train=a")["data"]["train"] == "a"


def test_the_words_of_a_command_line_are_sorted(tmp_path: Path) -> None:
    words = ["codebook=vq", "--print-config", "data.train=x y", "data.val=[a]", "~name", "-h"]
    line = read_command_line([*words, "--config-dir", str(tmp_path)])
    assert line.paths == {"data.train": "x y"}
    assert line.overrides == ["codebook=vq", "data.val=[a]", "~name"]
    assert (line.config_dir, line.show_help, line.print_config) == (tmp_path, True, True)
    assert read_command_line([f"--config-dir={tmp_path}"]).config_dir == tmp_path
    empty = read_command_line([])
    assert (empty.config_dir, empty.show_help, empty.print_config) == (None, False, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir"], "--config-dir must be a folder of yaml files, got ''"),
        (["--config-dir", "/absent"], "got '/absent'"),
        (["--print-confg"], "unknown option '--print-confg', did you mean '--print-config'?"),
        (["data.train"], "cannot read 'data.train': write key=value, such as codebook.size=1024"),
        (["experiment", "=", "demo"], "cannot read 'experiment': write key=value, without spaces"),
        (["seed=", "1"], "cannot read '1': write key=value, without spaces around ="),
        (["=5"], "cannot read '=5': write key=value"),
        (["data.trian=x"], "unknown key 'data.trian', did you mean 'data.train'?"),
        (["optim.lrr=1"], "did you mean 'optim.lr'?"),
        (
            ["codebook=lfq", "codebook.dim=8"],
            "'codebook.dim', valid are: codebook.commit",
        ),
        (["encoder.freeze=1"], "unknown key 'encoder.freeze', valid are: encoder."),
        (["batch_size=1"], "unknown key 'batch_size', did you mean 'data.batch_size'?"),
        (["lr=1"], "unknown key 'lr', did you mean 'optim.lr'?"),
        (["discriminator.lr=1"], "did you mean 'optim.discriminator.lr'?"),
        (["channels=1"], "did you mean 'data.channels' or 'decoder.channels' or 'encoder.ch"),
        (["device=cpu"], "unknown key 'device', did you mean 'trainer.accelerator'?"),
        (["images=x"], "unknown key 'images', did you mean 'data.train'?"),
        (["zzz=1"], "unknown key 'zzz', --help lists the valid ones"),
        (["logger.zzzzzzzz=1"], "unknown key 'logger.zzzzzzzz', valid are: logger.kind"),
        (["codebook=fsq", "codebook.restart_below=0"], "unknown key 'codebook.restart_below'"),
        (["codebook=ema", "codebook.inner=vq"], "codebook.inner cannot be chosen"),
        (["codebook=residual", "codebook.inner=simv"], "did you mean 'simvq'?"),
        (
            ["loss/reconstruction=l3"],
            "unknown loss/reconstruction 'l3', valid are: charbonnier, l1",
        ),
        (["codebook=[ema,vq]"], "simvq, vq, got ['ema', 'vq']"),
        (["codebook=null"], "codebook must be one of bsq, continuous, ema, fsq, "),
        (["experiment=null"], "experiment must be one of "),
        (["~trainer"], "trainer must be one of default, fsdp, got None"),
        (["codebook@other=vq"], "there is no other yet: write +codebook@other=vq"),
        (["codebook.size=[1"], "cannot read 'codebook.size=[1': quote the value"),
        (["codebook.size=choice(1,2)"], "one value for each key; vqtrain sweep takes several"),
        (["data.image_size=256,256"], "and a list is data.image_size=[256,256]"),
        (["metrics=psnr,ssim"], "metrics are a list: write metrics=[psnr,ssim]"),
        (["name=${absent}"], "absent"),
        (["codebook.size.x=1"], "unknown key 'codebook.size.x', did you mean 'codebook.size'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_with_what_would_be_right(words: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        composed(*words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_folder_of_the_users_adds_choices_and_experiments(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "my configs = {a}",
        {
            "codebook/mine.yaml": "kind: my_package.codes:Mine\nsize: 7\n",
            "experiment/small.yaml": "# @package _global_\n"
            "defaults:\n  - override /codebook: mine\nname: small\ntrainer:\n  max_steps: 3\n",
        },
    )
    option = f"--config-dir={folder}"
    config = composed(option, "experiment=small", "codebook.size=9", "trainer.log_every=2")
    assert config["codebook"] == {"kind": "my_package.codes:Mine", "size": 9, "grow_from": None}
    assert (config["name"], config["trainer"]["max_steps"]) == ("small", 3)
    assert config["trainer"]["log_every"] == 2
    assert composed(option, "codebook=mine")["codebook"]["size"] == 7
    # Ours are still there.
    assert composed(option, "experiment=demo")["name"] == "demo"
    with pytest.raises(ConfigError, match="'smal', did you mean 'small'"):
        composed(option, "experiment=smal")
    assert {"ema", "mine", "vq"} <= set(group_choices(folder)["codebook"])
    assert "mine" not in group_choices(None)["codebook"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# @package _global_\ndefaults:\n  - override /codebook: absent\n", "codebook/absent"),
        ("# @package _global_\ncodebook: [\n", "not valid YAML: while parsing a flow node"),
    ],
    ids=["choice", "syntax"],
)
def test_a_mistake_in_a_config_of_the_users_is_one_line(
    text: str, message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, {"experiment/mine.yaml": text})
    with pytest.raises(ConfigError) as raised:
        composed(f"--config-dir={folder}", "experiment=mine")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_printed_configuration_composes_to_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "codebook=vq",
        "codebook.size=64",
        "data.train=/a b/${seed}-{000..099}.tar",
        "data.val=[a,'b c']",
        'name="na\u00efve"',
        'optim.warmup_steps="5%"',
        'trainer.max_time="01:00:00"',
        "trainer.clip=null",
    ]
    assert main(["train", *words, "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == composed(*words)
    header = "# @package _global_\ndefaults:\n  - override /codebook: vq\n"
    folder = write(tmp_path, {"experiment/printed.yaml": header + printed})
    assert composed(f"--config-dir={folder}", "experiment=printed") == composed(*words)


def test_printing_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--print-config", "data.train=/absent"]) == 0
    assert "train: /absent" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("codebook.size=-1", "codebook.size must be at least 1, got -1"),
        ("trainer.precision=half", "got 'half'"),
        ("data.image_size=8", "metrics: ssim needs images of at least 11 px, these have 8"),
        ("callbacks.mine.kind=nowhere:Mine", "cannot import 'nowhere:Mine'"),
    ],
)
@pytest.mark.parametrize("command", ["train", "doctor"])
def test_what_cannot_be_trained_is_not_printed(
    command: str, word: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["encoder.channels=8", "decoder.channels=8", "trainer.accelerator=cpu"]
    assert main([command, word, *small, "--print-config"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err


def test_every_config_is_found() -> None:
    assert len(FILES) >= 15
    assert configs_folder() == CONFIGS
    found = [f"{group}/{name}" for group, names in group_choices(None).items() for name in names]
    assert sorted([*found, "train"]) == FILES


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group, _, name in CHOICES if group != "experiment"],
    ids=lambda word: word,
)
def test_every_choice_brings_what_its_file_says(group: str, name: str) -> None:
    config = composed(f"{group}={name}")
    for part in group.split("/"):
        config = config[part]
    expected = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
    for default in expected.pop("defaults", []) if group in ("codebook", "trainer") else []:
        if group == "trainer":
            expected = {
                **yaml.safe_load((CONFIGS / group / f"{default}.yaml").read_text()),
                **expected,
            }
        elif default != "_self_":
            ((_, chosen),) = default.items()  # the codebook inside this one
            whole = yaml.safe_load((CONFIGS / group / f"{chosen}.yaml").read_text())
            expected["inner"] = {**whole, **expected["inner"]}
    expected.pop("defaults", None)  # of data, which choose the metrics of its samples
    if group == "metrics":  # each with the arguments of its own file
        expected["names"] = metric_entries(expected["names"], None)
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("codebook=vq", True),
        ("loss/reconstruction=l2", True),
        ("experiment=demo", True),
        ("+experiment=demo", True),
        ("codebook@other=vq", True),
        ("codebook.size=4", False),
        ("name=codebook", False),
        ("loss.reconstruction.weight=2", False),
    ],
)
def test_a_choice_from_a_group_is_told_from_a_value(word: str, expected: bool) -> None:
    assert is_group_choice(word, group_choices(None)) is expected


STRANGERS = '''
"""Parts of another package."""

from torch import nn

from vqtrain.encoders.base import Encoder
from vqtrain.losses.base import LossTerm


class Patches(Encoder):
    downsampling = (4, 4)

    def __init__(self, *, in_channels: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.out_channels = width
        self.layer = nn.Conv2d(in_channels, width, 4, 4, bias=bias)

    def forward(self, samples):
        return self.layer(samples)


class Edges(LossTerm):
    def forward(self, reconstructions, samples):
        return (reconstructions - samples).diff(dim=-1).abs().mean()
'''


@pytest.fixture
def _strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strangers_for_compose.py").write_text(STRANGERS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("_strangers")
def test_a_class_is_chosen_as_a_word_is_and_its_arguments_are_keys() -> None:
    config = composed("encoder=strangers_for_compose:Patches", "encoder.width=8")
    kind = "strangers_for_compose:Patches"
    assert config["encoder"] == {"kind": kind, "width": 8, "bias": True}


@pytest.mark.usefixtures("_strangers")
def test_terms_of_the_loss_are_added_by_a_name_of_their_own() -> None:
    config = composed(
        *("loss/edges=strangers_for_compose:Edges", "loss.edges.weight=0.5", "loss/squared=l2"),
        "loss.squared.ramp_steps=10%",
    )
    steps = {"start_step": 0, "ramp_steps": 0}
    assert config["loss"]["edges"] == {
        "kind": "strangers_for_compose:Edges",
        "weight": 0.5,
        **steps,
    }
    assert config["loss"]["squared"] == {
        "kind": "l2",
        "weight": 1.0,
        **steps,
        "ramp_steps": "10%",
    }
    assert config["loss"]["reconstruction"]["kind"] == "l1"


def test_a_word_of_a_group_is_a_term_under_another_name(tmp_path: Path) -> None:
    word = "+loss/perceptual@loss.logits=convnext"
    plain = composed("loss/logits=convnext", "loss.logits.weight=0.2")
    assert composed(word, "loss.logits.weight=0.2") == plain
    assert plain["loss"]["logits"]["kind"] == "convnext"
    assert plain["loss"]["perceptual"] == {"kind": "none"}
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [{/loss/perceptual@loss.logits: convnext}]\n"
    (tmp_path / "experiment/two.yaml").write_text(f"{text}loss: {{logits: {{weight: 0.2}}}}\n")
    typed = [f"--config-dir={tmp_path}", "experiment=two"]
    assert composed(*typed)["loss"] == plain["loss"]
    other = composed(*typed, "loss/perceptual@loss.logits=gram")["loss"]["logits"]
    assert (other["kind"], other["weight"]) == ("gram", 0.2)
    for words, message in (
        (["+loss/perceptual@loss.logits=convnet"], "'convnet', did you mean 'convnext'"),
        ([word, "loss.logits.wait=1"], "'loss.logits.wait', did you mean 'loss.logits.weight'"),
        (
            ["loss/perceptual@loss.logits=gram"],
            r"no loss.logits yet: write \+loss/perceptual@",
        ),
        (["+loss/perceptual@logits=gram"], r"loss/perceptual@logits is no term.*@loss.NAME=gram"),
    ):
        with pytest.raises(ConfigError, match=message):
            composed(*words)


@pytest.mark.usefixtures("_strangers")
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("encoder=strangers_for_compose:Patches", "encoder.width has no value yet: set encoder.wi"),
        ("encoder=strangers_for_compose:Absent", "encoder.kind: cannot import"),
        ("codebook=strangers_for_compose:Patches", "codebook.kind: .* must inherit from"),
        ("loss/edges=charbonier", "unknown kind 'charbonier', did you mean 'charbonnier'"),
        ("loss/adversarial=strangers_for_compose:Edges", "loss/adversarial.kind: .* must inherit"),
        ("data=strangers_for_compose:Edges", "unknown data 'strangers_for_compose:Edges'"),
    ],
)
def test_a_class_that_cannot_be_chosen_is_one_line(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed(word)


@pytest.mark.parametrize("words", [["metrics=[psnr,lpips]"], ["metrics.names=[psnr,lpips]"]])
def test_metrics_are_named_in_a_list_and_get_the_arguments_of_their_files(words: list[str]) -> None:
    config = composed(*words)
    assert config["metrics"]["names"] == ["psnr", {"kind": "lpips", "network": "alex"}]


def test_metrics_have_arguments_of_their_own() -> None:
    config = composed("metrics=[{kind:lpips,network:vgg},package.module:Class,{kind:a.b:C,size:7}]")
    assert config["metrics"]["names"] == [
        {"kind": "lpips", "network": "vgg"},
        "package.module:Class",
        {"kind": "a.b:C", "size": 7},
    ]


def test_metrics_of_ones_own_configs_have_words(tmp_path: Path) -> None:
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric" / "mine.yaml").write_text("kind: lpips\nnetwork: squeeze\n")
    config = composed("metrics=[mine]", f"--config-dir={tmp_path}")
    assert config["metrics"]["names"] == [{"kind": "lpips", "network": "squeeze"}]


def test_a_metric_is_not_chosen_as_a_group_is() -> None:
    with pytest.raises(ConfigError, match=r"metrics are a list: write metrics=\[psnr\]"):
        composed("metric=psnr")
    with pytest.raises(ConfigError, match=r"metrics are a list: write metrics=\[psnr\]"):
        composed("metrics=psnr")


OWN_ENCODER = "encoder=vqtrain.encoders.vqvae:VQVAEEncoder"
OWN_VALUES = [
    *("encoder.block_channels=8", "encoder.num_downsamplings=2"),
    *("encoder.channels=8", "encoder.num_blocks=1"),
]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["experiment=var_demo", "codebook=ema"],
            "experiment=var_demo sets codebook.scales, which",
        ),
        (
            ["experiment=llamagen_vq8", OWN_ENCODER, *OWN_VALUES],
            f"encoder.multipliers, which {OWN_ENCODER} does not have: leave out with ~encoder.att",
        ),
        (  # a term of the loss, whose key has a slash and a dot
            ["experiment=mix", "loss/reconstruction=l2"],
            "sets loss.reconstruction.l1, which loss.reconstruction=l2 does not have",
        ),
    ],
)
def test_a_key_of_the_experiment_that_another_part_lacks_is_refused(
    words: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [{override /loss/reconstruction: mix}]\n"
    (tmp_path / "experiment/mix.yaml").write_text(f"{text}loss: {{reconstruction: {{l1: 2.0}}}}\n")
    typed = [f"--config-dir={tmp_path}", *words]
    with pytest.raises(ConfigError) as raised:
        composed(*typed)
    assert message in str(raised.value)
    without = [word for word in str(raised.value).split() if word.startswith("~")]
    config = flatten(composed(*typed, *without))
    assert not config.keys() & {word.removeprefix("~") for word in without}
