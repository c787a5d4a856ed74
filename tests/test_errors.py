"""How errors become a line and an exit code."""

import pytest

from vqtrain.errors import ConfigError, FailedError, VqtrainError, as_failure


def test_every_error_of_ours_has_exit_code_1_inside_and_keeps_its_class() -> None:
    with pytest.raises(ConfigError, match="as it is") as caught, as_failure():
        raise ConfigError("as it is")
    assert caught.value.exit_code == 1
    assert ConfigError("another").exit_code == 2


def test_an_error_that_is_explained_becomes_one_line() -> None:
    with (
        pytest.raises(FailedError, match="cannot write: full") as caught,
        as_failure({OSError: lambda error: f"cannot write: {error}"}),
    ):
        raise FileNotFoundError("full")
    assert caught.value.exit_code == 1
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("error", [RuntimeError("a defect"), ValueError("another")])
def test_any_other_error_is_raised_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, as_failure({RuntimeError: lambda _: None}):
        raise error
    assert caught.value is error
    assert not isinstance(caught.value, VqtrainError)
