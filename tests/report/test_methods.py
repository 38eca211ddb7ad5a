"""The methods tell every setting of the run, and cite what was used and nothing else."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from perikarya.config import ExperimentConfig
from perikarya.report.methods import Methods, write_methods
from perikarya.report.references import REFERENCES


def methods_of(built: Any, *, models: list[dict[str, Any]] | None = None, **sections: Any) -> Methods:
    """Write the methods of the run as if its configuration had been another one."""
    fake, _, results = built
    content = fake.config.model_dump(mode="json") | sections
    results = copy.deepcopy(results)
    if models is not None:
        content["models"] = models
        entry = results["models"]["alpha"]
        results["models"] = {m["name"]: copy.deepcopy(entry) for m in models}
    return write_methods(results, ExperimentConfig.model_validate(content))


def paragraph(methods: Methods, heading: str) -> str:
    return dict(methods.paragraphs)[heading]


def works(methods: Methods) -> set[str]:
    return {key for key, work in REFERENCES.items() if work in methods.references}


def test_every_citation_has_a_reference_and_every_reference_a_citation(built: Any) -> None:
    methods = methods_of(built)
    cited = {
        int(n)
        for _, text in methods.paragraphs
        for group in re.findall(r"\[([\d, ]+)\]", text)
        for n in group.split(", ")
    }
    assert cited == set(range(1, len(methods.references) + 1))
    assert len(set(methods.references)) == len(methods.references)
    assert not any("\ue000" in text for _, text in methods.paragraphs)


def test_the_design_names_folds_unit_and_seeds(built: Any) -> None:
    text = paragraph(methods_of(built), "Design")
    assert "divided into 3 folds by animals (seed 0)" in text
    assert "For each fold k a network was trained on the other folds but k + 1" in text
    assert "(seed 0)" in text
    assert "external set was not used" in text


def test_a_single_training_is_not_called_cross_validation(built: Any) -> None:
    fake, _, results = built
    results = copy.deepcopy(results)
    results["protocol"] |= {"scheme": "single", "interval_unit": {"external": "subject"}}
    methods = write_methods(results, fake.config)
    text = " ".join(t for _, t in methods.paragraphs)
    assert "trained on all folds but the first" in text
    assert "ross-validat" not in text


def test_fine_tuning_tells_its_settings(built: Any) -> None:
    train = {
        "epochs": 7, "batch_size": 24, "optimizer": "sgd", "lr": 0.003, "weight_decay": 0.02, "warmup": 0.1,
        "patience": 3, "grad_clip": 2.0, "layer_decay": 0.75, "loss": "focal", "focal_gamma": 1.5, "ema_decay": 0.99,
        "label_smoothing": 0.05, "class_weights": "balanced",
    }  # fmt: skip
    models = [{"name": "a", "arch": "resnet50", "strategy": "finetune", "input_px": 96}]
    methods = methods_of(built, models=models, train=train)
    text = paragraph(methods, "Training")
    for words in (
        "The network was fine-tuned in all weights with stochastic gradient descent",
            "(weight decay 0.02, gradient norm at most 2)",
        "for up to 7 epochs in batches of 24 cells", "rose linearly to 0.003 over the first 10 % of the steps",
        "each layer 0.75 times as fast", "the focal loss (gamma 1.5)", "labels smoothed by 0.05",
        "weighted by the inverse of their frequency", "after 3 epochs without a lower loss", "(decay 0.99)",
    ):  # fmt: skip
        assert words in text
    assert {"focal", "ema", "cosine", "smoothing", "resnet"} <= works(methods)
    assert not {"adam", "adamw", "lora", "head-first", "sklearn", "efficientnet"} & works(methods)


@pytest.mark.parametrize(
    ("strategy", "words", "work"),
    [
        ("head", "not trained itself: a multinomial logistic regression", "sklearn"),
        ("lora", "additions of rank 8 (alpha 16) to its attention matrices", "lora"),
        (
            "head-then-finetune",
            "after 3 epochs in which only the classifier learned, at ten times the rate",
            "head-first",
        ),
        ("finetune", "fine-tuned in all weights", "adamw"),
    ],
)
def test_each_strategy_has_its_own_sentence(built: Any, strategy: str, words: str, work: str) -> None:
    models = [{"name": "a", "arch": "vit_base_224", "strategy": strategy, "input_px": 224}]
    methods = methods_of(built, models=models)
    assert words in paragraph(methods, "Training")
    assert work in works(methods)
    assert ("fine-tun" in paragraph(methods, "Training")) == (strategy in ("finetune", "head-then-finetune"))


def test_models_of_equal_settings_share_a_sentence_and_others_have_theirs(built: Any) -> None:
    models = [
        {"name": "a", "arch": "resnet50", "strategy": "finetune", "train": {"lr": 0.001}},
        {"name": "b", "arch": "convnext_tiny", "strategy": "finetune", "train": {"lr": 0.001}},
        {"name": "c", "arch": "uni", "strategy": "head", "channels": "rgb"},
    ]
    methods = methods_of(built, models=models)
    training, networks = paragraph(methods, "Training"), paragraph(methods, "Networks")
    assert "a and b were fine-tuned in all weights" in training
    assert "c was not trained itself" in training
    assert "a and b were shown the colour picture and, as a fourth channel, the outline" in networks
    assert "c was shown the colour picture alone" in networks
    assert "These 3 networks were compared: a " in networks
    changes = paragraph(methods, "Augmentation and balance of classes")
    assert "Training cells of a and b were changed at random" in changes
    assert "Heads on frozen features were fitted to the cells as they are." in changes
    assert {"resnet", "convnext", "uni"} <= works(methods)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("flip", "flips"), ("rotate_deg", "rotation by up to 20°"), ("scale", "scaling between 1/1.2 and 1.2"),
        ("shear_deg", "shear by up to 20°"), ("translate", "shifts by up to 20 % of the window"),
        ("elastic", "elastic bending by up to 20 %"), ("brightness", "brightness by up to ±20 %"),
        ("contrast", "contrast by up to ±20 %"), ("saturation", "saturation by up to ±20 %"),
        ("gamma", "gamma by up to ±20 %"), ("stain", "strength of the stains by up to ±20 %"),
        ("blur_sigma_px", "blur with a sigma of up to 20 px"),
        ("noise", "noise with a standard deviation of up to 20 %"),
        ("cutout", "a grey rectangle outside the cell with a probability of 0.2"), ("mixup", "mixup (alpha 20)"),
        ("cutmix", "CutMix (alpha 20)"),
    ],
)  # fmt: skip
def test_each_random_change_is_told_when_used_and_only_then(built: Any, setting: str, words: str) -> None:
    models = [{"name": "a", "arch": "resnet50", "strategy": "finetune"}]
    is_large = setting.endswith("_deg") or setting in ("blur_sigma_px", "mixup", "cutmix")
    value: Any = True if setting == "flip" else 20.0 if is_large else 0.2
    text = paragraph(
        methods_of(built, models=models, augment={"preset": "none", setting: value}),
        "Augmentation and balance of classes",
    )
    assert re.sub(r" \[\d+\]", "", text).startswith(
        f"Training cells were changed at random in every epoch, mask and picture together: {words}"
    )
    none = paragraph(
        methods_of(built, models=models, augment={"preset": "none"}), "Augmentation and balance of classes"
    )
    assert none.startswith("Training cells were not augmented.")


@pytest.mark.parametrize(
    ("method", "words", "work"),
    [
        ("none", "were not resampled", None),
        ("undersample", "undersampled until every class had as many as the rarest", None),
        ("oversample", "oversampled until every class had as many as the most frequent", None),
        ("weighted", "drawn anew in every epoch, all classes alike", None),
        ("smote", "synthetic cells of the rarer classes (smote, 5 neighbours, between pixels)", "smote"),
        ("adasyn", "(adasyn, 5 neighbours", "adasyn"),
        ("borderline-smote-2", "(borderline-smote-2, 5 neighbours", "borderline"),
        ("smote-tomek", "(smote-tomek, 5 neighbours", "smote-clean"),
    ],
)
def test_each_way_of_balancing_classes_is_told(built: Any, method: str, words: str, work: str | None) -> None:
    models = [{"name": "a", "arch": "resnet50", "strategy": "finetune"}]
    methods = methods_of(built, models=models, resample={"method": method})
    assert words in paragraph(methods, "Augmentation and balance of classes")
    used = works(methods) & {"smote", "adasyn", "borderline", "svm-smote", "smote-clean"}
    assert (work in used) if work else not used


def test_intervals_cite_the_method_that_was_used(built: Any) -> None:
    plain = methods_of(built, evaluate={"interval": "percentile"})
    bca = methods_of(built, evaluate={"interval": "bca", "stratify": "group"})
    assert "expanded" in works(plain)
    assert "bca" not in works(plain)
    assert "bca" in works(bca)
    assert "kept the number of animals of each group" in paragraph(bca, "Uncertainty")
    assert "400 draws, seed 0" in paragraph(plain, "Uncertainty")


def test_weights_are_told_with_source_licence_and_hash(built: Any) -> None:
    text = paragraph(methods_of(built), "Networks")
    assert "alpha (0.123 million parameters, weights made up, SHA-256 abababababababab…, licence Apache-2.0)" in text


def test_hashes_and_versions_close_the_methods(built: Any) -> None:
    fake, _, results = built
    text = paragraph(methods_of(built), "Software")
    assert fake.opened.data_hash in text
    assert f"numpy {results['provenance']['versions']['numpy']}" in text


def test_the_markdown_holds_the_same_words(built: Any) -> None:
    fake, path, results = built
    methods = write_methods(results, fake.config)
    text = (path.parent / "methods.md").read_text()
    assert text == methods.markdown(f"Methods: {results['study']['name']}")
    for heading, _ in methods.paragraphs:
        assert f"**{heading}.**" in text
    assert f"{len(methods.references)}. " in text
