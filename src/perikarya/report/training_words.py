"""How networks were trained, in sentences: models of equal settings share one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from perikarya.config import AugmentConfig, ExperimentConfig, ModelConfig, ResampleConfig, TrainConfig
from perikarya.report.references import cite, works_on
from perikarya.report.words import capital, listed

_CHANNELS = {
    "rgb+mask": "the colour picture and, as a fourth channel, the outline",
    "rgb": "the colour picture alone",
    "mask": "the outline alone",
    "masked-rgb": "the colour picture, black outside the outline",
}
_OPTIMIZERS = {
    "adam": ("Adam", "adam"),
    "adamw": ("AdamW", "adamw"),
    "sgd": ("stochastic gradient descent", None),
}
_SMOTE_WORKS = {
    "smote": ("smote",),
    "borderline-smote-1": ("borderline",),
    "borderline-smote-2": ("borderline",),
    "svm-smote": ("svm-smote",),
    "adasyn": ("adasyn",),
    "smote-tomek": ("smote", "smote-clean"),
    "smote-enn": ("smote", "smote-clean"),
}
# these stand for words of one or of several models until it is known how many share a sentence
_BE, _OWN, _SELF = "{was}", "{its}", "{itself}"
_ONE = {_BE: "was", _OWN: "its", _SELF: "itself"}
_MANY = {_BE: "were", _OWN: "their", _SELF: "themselves"}


def trained_models(config: ExperimentConfig, results: Mapping[str, Any]) -> list[ModelConfig]:
    """Return the models that have results; points of a learning curve are not models of their own."""
    return [m for m in config.models if m.train_subjects is None and m.name in results["models"]]


def describe_networks(config: ExperimentConfig, results: Mapping[str, Any]) -> str:
    """Say which networks there are, what they start from and what they are shown."""
    models = trained_models(config, results)
    many = f"These {len(models)} networks were compared" if len(models) > 1 else "One network was trained"
    parts = [_network(m, results["models"][m.name]) for m in models]
    shown = _shared(models, lambda m: f"{_BE} shown {_CHANNELS[m.channels]}{_side(m)}")
    return f"{many}: {'; '.join(parts)}. {shown}{_mask_sentence(models)}"


def _side(model: ModelConfig) -> str:
    return "" if model.input_px is None else f", resized to {model.input_px} × {model.input_px} px"


def _network(model: ModelConfig, entry: Mapping[str, Any]) -> str:
    weights = entry.get("weights") or {}
    facts = []
    if entry.get("n_params") is not None:
        facts.append(f"{entry['n_params'] / 1e6:.3g} million parameters")
    if model.weights == "none" or weights.get("source") in (None, "random"):
        facts.append("from random weights")
    else:
        digest = f", SHA-256 {weights['sha256'][:16]}…" if weights.get("sha256") else ""
        facts.append(f"weights {weights['source']}{digest}, licence {weights.get('licence') or 'not stated'}")
    alias = "" if model.arch == model.name else f", network {model.arch}"
    return f"{model.name}{cite(*works_on(model.arch))} ({', '.join(facts)}{alias})"


def _mask_sentence(models: Sequence[ModelConfig]) -> str:
    tuned = [m for m in models if m.channels == "rgb+mask" and m.strategy != "head" and m.weights != "none"]
    how = {m.mask_init for m in tuned}
    if how == {"zero"}:
        return (
            " The filters of the fourth channel started at zero, so that pretrained filters saw the colours unchanged."
        )
    return ""


def describe_training(config: ExperimentConfig, results: Mapping[str, Any]) -> str:
    """Say how the networks learned: strategy, optimizer, schedule, loss and stopping."""
    models = trained_models(config, results)
    tuned = any(m.strategy != "head" for m in models)
    software = f" Training used PyTorch{cite('pytorch')} and timm{cite('timm')}." if tuned else ""
    return _shared(models, lambda m: _head(config, m) if m.strategy == "head" else _tuned(config, m)) + software


def _head(config: ExperimentConfig, model: ModelConfig) -> str:
    head = config.head_of(model)
    two = (
        " of the whole window and of the window with everything outside the outline blackened"
        if model.channels == "rgb+mask"
        else ""
    )
    weighted = ", classes weighted by the inverse of their frequency" if head.class_weights == "balanced" else ""
    penalties = listed([f"{p:g}" for p in head.penalties], "or")
    chosen = f"the L2 penalty ({penalties}) with the lowest loss on the stopping fold was kept"
    return (
        f"{_BE} not trained {_SELF}: a multinomial logistic regression (scikit-learn{cite('sklearn')}{weighted}) was "
        f"fitted to the standardised features of the frozen network{two}; {chosen}"
    )


def _tuned(config: ExperimentConfig, model: ModelConfig) -> str:
    train = config.train_of(model)
    name, work = _OPTIMIZERS[train.optimizer]
    clip = "" if train.grad_clip is None else f", gradient norm at most {train.grad_clip:g}"
    rate = "" if train.lr is None else f" to {train.lr:g}"
    decay = "" if train.layer_decay == 1 else f", each layer {train.layer_decay:g} times as fast as the one above it"
    return (
        f"{_BE} {_strategy(train, model.strategy)} with {name}{cite(work) if work else ''} (weight decay "
        f"{train.weight_decay:g}{clip}) for {_epochs(train)} in batches of {train.batch_size} cells; the learning rate "
        f"rose linearly{rate} over the first {100 * train.warmup:g} % of the steps and fell to 0 along a "
        f"cosine{cite('cosine')}{decay}; the loss was {_loss(train)}; {_stopping(train)}"
    )


def _strategy(train: TrainConfig, strategy: str) -> str:
    if strategy == "lora":
        return (
            f"adapted through additions of rank {train.lora_rank} (alpha {train.lora_alpha:g}) to {_OWN} attention "
            f"matrices{cite('lora')}, other weights but the classifier's staying as they were,"
        )
    if strategy == "head-then-finetune":
        return (
            f"fine-tuned, after {train.head_epochs} epochs in which only the classifier learned, at ten times the "
            f"rate{cite('head-first')},"
        )
    if train.last_blocks is not None:
        return f"fine-tuned in {_OWN} last {train.last_blocks} block(s) and the classifier"
    return "fine-tuned in all weights"


def _epochs(train: TrainConfig) -> str:
    return f"{train.epochs} epochs" if train.patience >= train.epochs else f"up to {train.epochs} epochs"


def _loss(train: TrainConfig) -> str:
    words = {
        "cross-entropy": "cross-entropy",
        "focal": f"the focal loss (gamma {train.focal_gamma:g}){cite('focal')}",
        "ordinal": f"that of continuation ratios in the order of the classes (CORN){cite('corn')}",
    }[train.loss]
    if train.label_smoothing:
        words += f" with labels smoothed by {train.label_smoothing:g}{cite('smoothing')}"
    if train.class_weights == "balanced":
        words += ", classes weighted by the inverse of their frequency"
    return words


def _stopping(train: TrainConfig) -> str:
    stop = (
        ""
        if train.patience >= train.epochs
        else f"training ended after {train.patience} epochs without a lower loss on the stopping fold, and "
    )
    average = f" of a moving average of the weights (decay {train.ema_decay:g}){cite('ema')}" if train.ema_decay else ""
    return f"{stop}the state{average} after the epoch with the lowest loss on the stopping fold was kept"


def describe_changes(config: ExperimentConfig, results: Mapping[str, Any]) -> str:
    """Say how training cells were changed at random and how classes were balanced."""
    models = trained_models(config, results)
    tuned = [m for m in models if m.strategy != "head"]
    said = []
    if tuned:
        said.append(
            _shared(tuned, lambda m: _augmentation(config.augment_of(m)), whose="training cells of", all_models=models)
        )
    if len(tuned) < len(models):
        said.append("Heads on frozen features were fitted to the cells as they are.")
    said.append(_shared(models, lambda m: _resampling(config.resample_of(m), m), whose="training cells of"))
    return " ".join(said)


def _augmentation(a: AugmentConfig) -> str:
    ranges = [
        ("flips", a.flip),
        (f"rotation by up to {a.rotate_deg:g}°", a.rotate_deg),
        (f"scaling between 1/{1 + a.scale:g} and {1 + a.scale:g}", a.scale),
        (f"shear by up to {a.shear_deg:g}°", a.shear_deg),
        (f"shifts by up to {100 * a.translate:g} % of the window", a.translate),
        (f"elastic bending by up to {100 * a.elastic:g} % of the window{cite('elastic')}", a.elastic),
        *((f"{name} by up to ±{100 * value:g} %", value) for name, value in _light(a)),
        (f"gamma by up to ±{100 * a.gamma:g} %", a.gamma),
        (f"strength of the stains by up to ±{100 * a.stain:g} % in optical density{cite('stain')}", a.stain),
        (f"blur with a sigma of up to {a.blur_sigma_px:g} px", a.blur_sigma_px),
        (f"noise with a standard deviation of up to {100 * a.noise:g} % of full intensity", a.noise),
        (f"a grey rectangle outside the cell with a probability of {a.cutout:g}{cite('cutout')}", a.cutout),
        (f"mixup (alpha {a.mixup:g}){cite('mixup')}", a.mixup),
        (f"CutMix (alpha {a.cutmix:g}){cite('cutmix')}", a.cutmix),
    ]
    used = [words for words, value in ranges if value]
    if not used:
        return "were not augmented"
    mixed = f" (mixing in {100 * a.mix_share:g} % of the batches)" if a.mixup or a.cutmix else ""
    return f"were changed at random in every epoch, mask and picture together: {listed(used)}{mixed}"


def _light(a: AugmentConfig) -> Iterable[tuple[str, float]]:
    return (("brightness", a.brightness), ("contrast", a.contrast), ("saturation", a.saturation))


def _resampling(r: ResampleConfig, model: ModelConfig) -> str:
    if r.method == "none":
        return "were not resampled to balance the classes"
    if r.method == "weighted":
        return "were drawn anew in every epoch, all classes alike"
    if r.method in ("undersample", "oversample"):
        target = "the rarest" if r.method == "undersample" else "the most frequent"
        return f"were {r.method}d until every class had as many as {target}"
    space = r.space if r.space != "auto" else ("features" if model.strategy == "head" else "pixels")
    where = "frozen features" if space == "features" else "pixels"
    return (
        f"were supplemented by synthetic cells of the rarer classes ({r.method}, {r.neighbours} neighbours, between "
        f"{where}){cite(*_SMOTE_WORKS[r.method])}, made of training cells only"
    )


def describe_views(results: Mapping[str, Any]) -> str:
    """Say what entries with several views and ensembles average; nothing where there are none."""
    said = []
    entries = results["models"].values()
    views = sorted({int(m.get("n_views") or 1) for m in entries if m.get("tta")})
    if views:
        numbers = listed([str(v) for v in views], "or")
        said.append(
            f"Entries marked TTA average the probabilities over {numbers} flips and quarter turns of each cell."
        )
    if any(m["kind"] == "ensemble" for m in entries):
        said.append(
            f"Ensembles average the probabilities of several networks{cite('ensemble')} for cells on which none of them "
            "was trained."
        )
    return " ".join(said)


def _shared(
    models: Sequence[ModelConfig],
    predicate: Callable[[ModelConfig], str],
    *,
    whose: str = "",
    all_models: Sequence[ModelConfig] | None = None,
) -> str:
    """Write one sentence for each group of models that a predicate says the same of."""
    groups: dict[str, list[str]] = {}
    for model in models:
        groups.setdefault(predicate(model), []).append(model.name)
    everyone = len(groups) == 1 and len(all_models or models) == len(models)
    said = []
    for words, names in groups.items():
        who = _everyone(len(models), whose) if everyone else f"{whose} {listed(names)}".strip()
        plural = bool(whose) or len(names) > 1
        for mark, word in (_MANY if plural else _ONE).items():
            words = words.replace(mark, word)
        said.append(f"{capital(who) if everyone or whose else who} {words}.")
    return " ".join(said)


def _everyone(n_models: int, whose: str) -> str:
    if whose:
        return whose.removesuffix(" of")
    return "all networks" if n_models > 1 else "the network"
