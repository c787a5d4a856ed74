"""What a run suggests at its end."""

import pytest

from vqtrain.app.parts.compose import compose, read_command_line
from vqtrain.app.parts.ending import allowing, suggestions


@pytest.mark.parametrize(
    ("words", "last"),
    [
        (["experiment=demo"], "train experiment=small_vqgan data.train="),
        (["experiment=demo", "data.train=photos"], "evaluate tokenizer=runs/a"),
        (["experiment=small_vqgan", "data.train=demo"], "evaluate tokenizer=runs/a"),
        (["encoder=cnn", "decoder=cnn"], "train experiment=small_vqgan data.train="),
    ],
)
def test_what_comes_next_fits_the_run(words: list[str], last: str) -> None:
    config = compose("train", read_command_line(words))
    reconstruct, export, other = suggestions(config, "runs/a", allowing(config))
    assert reconstruct == "vqtrain reconstruct tokenizer=runs/a images=A_FOLDER_OF_IMAGES"
    assert export == "vqtrain export tokenizer=runs/a format=onnx"
    assert other.startswith(f"vqtrain {last}")


def test_a_run_on_sounds_suggests_sounds() -> None:
    config = compose("train", read_command_line(["data=sound", "encoder=jukebox"]))
    first, *_, last = suggestions(config, "runs/a", "")
    assert first == "vqtrain reconstruct tokenizer=runs/a sounds=A_FOLDER_OF_SOUNDS"
    assert last == "vqtrain evaluate tokenizer=runs/a"


@pytest.mark.parametrize("codebook", ["continuous", "kl"])
def test_classes_of_the_users_own_are_allowed_where_they_are_read(codebook: str) -> None:
    config = compose("train", read_command_line(["data.train=photos", f"codebook={codebook}"]))
    config["encoder"]["kind"], config["decoder"]["kind"] = "mine.a:Encoder", "other.b:Decoder"
    commands = suggestions(config, "runs/a", allowing(config))
    assert len(commands) == 2  # no ids, so no graphs
    assert all(command.endswith(" 'allow=[mine,other]'") for command in commands)
