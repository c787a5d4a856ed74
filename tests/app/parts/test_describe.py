"""The keys in ``--help``: each with what its yaml says of it."""

from pathlib import Path

from vqtrain.app.parts.compose import compose, flatten, group_choices, read_command_line
from vqtrain.app.parts.describe import describe_keys


def test_the_help_lists_every_group_and_every_key_with_its_meaning(tmp_path: Path) -> None:
    words = ["codebook=fsq", "discriminator=patchgan", "loss/perceptual=lpips", "codebook.size=9"]
    words += ["+loss/perceptual@loss.logits=convnext"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/image.yaml").write_text("---\n  # no key yet\ncrop: x  # another text\n")
    line = read_command_line(words)
    lines = describe_keys("train", line).splitlines()
    for group, choices in group_choices(None).items():
        assert f"  {group:<20} {', '.join(choices)}" in lines
    for key in flatten(compose("train", line)):
        *_, found = [each for each in lines if each.startswith(f"  {key} ")]
        meaning, _, value = found.removeprefix(f"  {key} ").strip().partition(" [")
        assert meaning, key
        assert value.endswith("]"), key
    shown = {each.split()[0]: " ".join(each.split()[1:]) for each in lines if each.strip()}
    assert shown["codebook.size"].endswith(" [9]")
    assert shown["codebook.kind"] == "chosen by codebook=WORD [fsq]"
    assert shown["seed"] == "of all random numbers of the run [0]"
    assert shown["optim.discriminator.clip"] == "largest norm of its gradient; null: no limit [1.0]"
    assert shown["loss.logits.kind"] == "chosen by loss/logits=WORD [convnext]"
    assert shown["loss.logits.start_step"] == "first step of the term, >= 0 [0]"
    own = describe_keys("train", read_command_line([f"--config-dir={tmp_path}"]))
    assert "another text" in own
