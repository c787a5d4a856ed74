"""What an evaluation has written, read as types."""

from pathlib import Path

import pytest

from vqtrain.errors import ConfigError
from vqtrain.evaluation.results import read_evaluation, read_image_values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Invalid JSON"),
        ("{}", "tokenizers: Field required"),
        ('{"tokenizers": [3]}', r"tokenizers\.0: "),
        (
            '{"tokenizers": [{"image_size": "large", "metrics": {}}]}',
            r"tokenizers\.0\.image_size\.int: ",
        ),
    ],
)
def test_a_damaged_file_is_one_sentence_that_names_the_key(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"cannot read the results in .*\.json: {message}") as e:
        read_evaluation(tmp_path)
    assert "\n" not in str(e.value)


def test_without_a_file_there_are_no_values_of_images(tmp_path: Path) -> None:
    assert read_image_values(tmp_path / "per_image.parquet").values == {}
    (tmp_path / "per_image.parquet").write_text("damaged")
    assert read_image_values(tmp_path / "per_image.parquet").keys == ()
