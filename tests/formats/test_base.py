"""The yaml of a format says which commands it is for, and what each key takes."""

import re

import pytest

from vqtrain.app.parts.pages import COMMANDS, hints_of, kinds_for
from vqtrain.build import kinds, resolve
from vqtrain.formats.base import Converter, Exporter
from vqtrain.ranges import choices_of


def test_formats_are_listed_by_what_they_can_do() -> None:
    exporters, converters = kinds_for("format.export"), kinds_for("format.convert")
    for word in kinds("format"):
        found = resolve("format", word)
        assert (word in exporters) is issubclass(found, Exporter)
        assert (word in converters) is issubclass(found, Converter)


@pytest.mark.parametrize("group", ["format", "launcher"])
def test_the_yaml_of_a_kind_says_what_each_key_takes(group: str) -> None:
    for word, page in kinds_for(group).items():
        assert page.about.startswith(COMMANDS) is (group == "format")
        for key, hint in hints_of(resolve(group, word)).items():
            assert set(choices_of(hint)) <= set(re.findall(r"[\w-]+", page.meanings[key])), key
