"""The picture of augmentation: every preset once, the run's own settings, mixed cells with their labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.tiny import CLASS_NAMES, make_study

from perikarya.config import AugmentConfig
from perikarya.data.augment import resize_batch
from perikarya.data.store import OpenStudy
from perikarya.figures.augmentation import plot_augmentation
from perikarya.figures.galleries import mosaic, outlined, pick_examples
from perikarya.settings import AUGMENT_PRESETS


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> OpenStudy:
    return make_study(tmp_path_factory.mktemp("figures") / "study", cells_per_subject=6)


def draw(opened: OpenStudy, used: dict[str, AugmentConfig], **options: Any) -> Figure:
    figure = plot_augmentation(opened, used, **options)
    assert figure is not None
    return figure


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes]


def sheet(figure: Figure, title: str) -> np.ndarray:
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left") == title)
    return np.asarray(ax.images[0].get_array())


def test_every_preset_has_a_row_and_says_who_uses_it(opened: OpenStudy) -> None:
    figure = draw(opened, {"alpha": AugmentConfig(preset="study"), "beta": AugmentConfig(preset="study")})
    found = [t for t in titles(figure) if ", " not in t or "used by" in t]
    assert found == ["none", "study (used by alpha, beta)", "standard", "strong"]
    assert list(AUGMENT_PRESETS) == ["none", "study", "standard", "strong"]


def test_settings_that_are_no_preset_get_one_row_for_all_who_use_them(opened: OpenStudy) -> None:
    own = AugmentConfig(rotate_deg=10, mixup=0.4, cutmix=1.0, mix_share=0.5)
    written_out = AugmentConfig.model_validate({"preset": "strong", **AugmentConfig().model_dump(exclude={"preset"})})
    figure = draw(opened, {"alpha": own, "beta": own, "gamma": written_out})
    assert titles(figure)[-3:] == ["own settings (used by alpha, beta)", "own settings, mixup", "own settings, cutmix"]
    assert "standard (used by gamma)" in titles(figure)
    details = [text.get_text() for ax in figure.axes[-2:] for text in ax.texts]
    assert "in 25 % of the batches, alpha 0.4" in details
    assert "in 25 % of the batches, alpha 1" in details


def test_the_settings_are_written_above_each_row(opened: OpenStudy) -> None:
    own = AugmentConfig(preset="none", flip=True, rotate_deg=90, scale=0.15, blur_sigma_px=0.5, cutout=0.25)
    figure = draw(opened, {"x": own})
    details = {t: ax.texts[0].get_text() for t, ax in zip(titles(figure), figure.axes, strict=True)}
    assert details["none"] == "nothing is changed"
    words = "flips, turn 90°, size 15 %, blur 0.5 px, cutout in 25 % of the cells"
    assert details["own settings (used by x)"].replace("\N{NO-BREAK SPACE}", " ") == words


def test_every_setting_is_put_into_words(opened: OpenStudy) -> None:
    """A setting added later must not be missing in the picture's words."""
    quiet = AugmentConfig(preset="none")
    names = sorted(set(AugmentConfig.model_fields) - {"preset", "mixup", "cutmix", "mix_share"})
    loud = {name: quiet.model_copy(update={name: True if name == "flip" else 0.1}) for name in names}
    words = {ax.get_title(loc="left"): ax.texts[0].get_text() for ax in draw(opened, loud, n_cols=1).axes}
    for name in names:
        assert words[f"own settings (used by {name})"] != "nothing is changed", name
    assert len({words[f"own settings (used by {name})"] for name in names}) == len(names)


def test_cells_of_all_classes_take_turns_and_none_shows_them_as_they_are(opened: OpenStudy) -> None:
    figure = draw(opened, {}, out_px=40, n_cols=5)
    rows = np.array([pick_examples(opened, k, n=1)[0] for k in (0, 1, 2, 0, 1)])
    cells = resize_batch(opened.read_crops(rows), 40)
    expected = mosaic([outlined(cell, size_px=240) for cell in cells], n_cols=5)
    np.testing.assert_array_equal(sheet(figure, "none"), expected)
    assert (sheet(figure, "standard") != expected).any()
    captions = [text.get_text() for text in figure.axes[0].texts[1:]]
    assert captions == [CLASS_NAMES[k] for k in (0, 1, 2, 0, 1)]


def test_mixed_cells_are_labelled_by_shares_that_sum_to_one(opened: OpenStudy) -> None:
    figure = draw(opened, {"x": AugmentConfig(mixup=1.0)})
    captions = [text.get_text() for text in figure.axes[-1].texts[1:]]
    assert len(captions) == 8
    for caption in captions:
        shares = [line.split(" % ") for line in caption.split("\n")]
        assert sum(int(share) for share, _ in shares) in (99, 100, 101)
        assert {name for _, name in shares} <= set(CLASS_NAMES)
    assert any("\n" in caption for caption in captions)


def test_the_same_picture_is_drawn_again(opened: OpenStudy) -> None:
    one, again = draw(opened, {}), draw(opened, {})
    np.testing.assert_array_equal(sheet(one, "strong"), sheet(again, "strong"))
    assert (sheet(draw(opened, {}, seed=1), "strong") != sheet(one, "strong")).any()


def test_it_can_be_saved_and_a_study_without_labels_has_no_such_picture(opened: OpenStudy, tmp_path: Path) -> None:
    draw(opened, {"a name with $ and _^ in it " * 9: AugmentConfig(scale=0.3)}).savefig(tmp_path / "x.png", dpi=40)
    bare = replace(opened, cells=opened.cells.assign(label=None))
    assert plot_augmentation(bare, {}) is None
