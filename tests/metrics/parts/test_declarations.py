"""What is declared about a metric that is known by its name."""

import pytest

from vqtrain.metrics.parts import declarations
from vqtrain.metrics.parts.declarations import Declaration, declaration, learn


@pytest.mark.parametrize(
    ("name", "title", "unit", "higher_is_better"),
    [
        ("psnr", "PSNR", "dB", True),
        ("val/ssim", "SSIM", "", True),
        ("ms_ssim", "MS-SSIM", "", True),
        ("lpips_alex", "LPIPS alex", "", False),
        ("lpips_vgg", "LPIPS vgg", "", False),
        ("dists", "DISTS", "", False),
        ("val/rfid@500", "rFID@500", "", False),
        ("rfid_adm@500", "rFID adm@500", "", False),
        ("rfid_adm@9", "rFID adm@9", "", False),
        ("val/codebook/usage", "Usage", "share of the ids", True),
        ("train/codebook/restarts", "Restarts", "", None),
    ],
)
def test_a_name_of_a_log_or_a_table_is_enough(
    name: str, title: str, unit: str, higher_is_better: bool | None
) -> None:
    expected = Declaration(title=title, unit=unit, higher_is_better=higher_is_better)
    assert declaration(name) == expected


def test_directions_of_other_metrics_are_learned_and_ours_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(declarations, "_learned", {})
    assert declaration("val/mean_absolute").higher_is_better is None
    learn({"mean_absolute": "lower", "psnr": "lower", "other": None})
    assert declaration("val/mean_absolute").lower_is_better
    assert declaration("psnr").higher_is_better
    assert declaration("other").higher_is_better is None
