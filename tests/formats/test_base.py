"""Formats are found by their words, and by what they can do."""

from vqtrain.formats.base import Converter, Exporter, kinds_of


def test_formats_are_listed_by_what_they_can_do() -> None:
    exporters, converters = kinds_of(Exporter), kinds_of(Converter)
    assert {"safetensors", "onnx", "torch_export", "diffusers"} <= set(exporters)
    assert {"taming", "llamagen", "diffusers"} <= set(converters)
    assert "onnx" not in converters
    assert "taming" not in exporters
