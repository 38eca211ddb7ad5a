"""The sections of an experiment's configuration: frozen settings in which an unknown key is an error."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CvConfig(Settings):
    """How the development set is divided.

    ``kfold``: fold k tests, fold k+1 stops the training, the others train. ``single``: one training on all folds
    but the first, which stops it; nothing of the development set is tested, the external set is.
    """

    scheme: Literal["kfold", "single"] = "kfold"
    n_folds: Annotated[int, Field(ge=3, le=100)] = 5
    group_by: Literal["auto", "subject", "image_id", "cell"] = "auto"
    seed: int = 0
    folds: tuple[Annotated[int, Field(ge=0)], ...] | None = None  # only these test folds; None: all
    # same pictures on two sides: refuse to train; separate them (one fold, or left out); or ignore them
    duplicates: Literal["refuse", "separate", "ignore"] = "refuse"

    @model_validator(mode="after")
    def _folds_exist(self) -> Self:
        if self.folds and max(self.folds) >= self.n_folds:
            raise ValueError(f"folds names fold {max(self.folds)} but n_folds is {self.n_folds} (folds count from 0)")
        if self.scheme == "single" and self.folds is not None:
            raise ValueError("folds makes no sense with scheme 'single', which trains once on everything")
        return self


class TrainConfig(Settings):
    """How one network is fine-tuned.

    What is left open (None) is filled in for each network from the zoo: ``lr``, ``micro_batch``, ``checkpointing``.
    """

    epochs: Annotated[int, Field(ge=1)] = 12
    batch_size: Annotated[int, Field(ge=2)] = 32  # cells between two steps of the optimizer
    micro_batch: Annotated[int, Field(ge=1)] | None = None  # cells in memory at once; gradients add up to a batch
    checkpointing: bool | None = None  # compute activations twice instead of keeping them: slower, in less memory
    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] | None = None
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # each layer learns this much slower than the one above
    weight_decay: NonNegative = 1e-2
    warmup: Fraction = 0.25  # share of all steps in which the learning rate rises from nearly 0; cosine to 0 after
    patience: Annotated[int, Field(ge=1)] = 12  # epochs without a better validation loss
    grad_clip: Annotated[float, Field(gt=0)] | None = 5.0  # largest norm of the gradient
    # moving average of the weights, judged and kept in their place; 0: none
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # ordinal: CORN, continuation ratios in the order of the study's classes (Shi, Cao & Raschka 2023)
    loss: Literal["cross-entropy", "focal", "ordinal"] = "cross-entropy"
    focal_gamma: NonNegative = 2.0  # how much the focal loss favours cells that are still wrong
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    last_blocks: Annotated[int, Field(ge=0)] | None = None  # train these and the classifier only; None: everything
    head_epochs: Annotated[int, Field(ge=1)] = 3  # of 'head-then-finetune': first epochs that train the classifier only
    lora_rank: Annotated[int, Field(ge=1, le=256)] = 8  # of 'lora': rank of what is added to each attention matrix
    lora_alpha: Annotated[float, Field(gt=0)] = 16.0
    tta_views: Literal[1, 2, 4, 8] = 4  # flips and quarter turns averaged at prediction
    amp: bool = True  # mixed precision, on a GPU only: on a CPU it is slower

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.warmup >= 1:
            raise ValueError("warmup must be below 1, else the learning rate never falls")
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of micro_batch {self.micro_batch}")
        if self.loss == "ordinal" and self.label_smoothing:
            raise ValueError("label_smoothing spreads a label over all classes alike, against an ordinal loss; use one")
        return self


class HeadConfig(Settings):
    """How a linear head is fitted to frozen features; the penalty with the best stopping-fold loss is kept."""

    penalties: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (
        1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1,
    )  # fmt: skip
    class_weights: Literal["none", "balanced"] = "balanced"


AUGMENT_PRESETS: dict[str, dict[str, Any]] = {
    "none": {
        "flip": False, "rotate_deg": 0.0, "scale": 0.0, "translate": 0.0,
        "brightness": 0.0, "contrast": 0.0, "saturation": 0.0,
    },
    # what the published study names: flips, affine; blur, noise, contrast. Its ranges are not given; these are ours
    "study": {
        "rotate_deg": 30.0, "scale": 0.1, "shear_deg": 10.0, "translate": 0.05,
        "brightness": 0.0, "contrast": 0.2, "saturation": 0.0, "blur_sigma_px": 1.0, "noise": 0.02,
    },
    "standard": {},
    "strong": {
        "scale": 0.15, "shear_deg": 5.0, "translate": 0.08, "brightness": 0.2, "contrast": 0.2, "saturation": 0.25,
        "gamma": 0.2, "blur_sigma_px": 1.0, "noise": 0.03, "stain": 0.15, "elastic": 0.05, "cutout": 0.5, "cutmix": 1.0,
        "mix_share": 0.5,
    },
}  # fmt: skip


class AugmentConfig(Settings):
    """Random changes of training cells; the mask moves with its image. All ranges are symmetric unless said.

    ``preset`` fills in everything that is not written out: ``none``, ``study`` (the published study's kinds),
    ``standard`` (the defaults below) or ``strong``.
    """

    preset: Literal["none", "study", "standard", "strong"] = "standard"
    flip: bool = True
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 180.0
    scale: Fraction = 0.05  # 0.05: between 1/1.05 and 1.05 times the size, which tells classes apart
    shear_deg: Annotated[float, Field(ge=0, le=45)] = 0.0
    translate: Fraction = 0.05  # of the window
    elastic: Annotated[float, Field(ge=0, le=0.2)] = 0.0  # largest smooth displacement, share of the window
    brightness: Fraction = 0.15
    contrast: Fraction = 0.15
    saturation: Fraction = 0.15
    gamma: Fraction = 0.0
    stain: Fraction = 0.0  # gain of haematoxylin, eosin and the rest apart, in optical density; 0.1: 0.9 to 1.1
    blur_sigma_px: NonNegative = 0.0  # largest sigma, drawn from 0 up
    noise: Fraction = 0.0  # largest standard deviation, share of full intensity
    cutout: Fraction = 0.0  # probability that a rectangle outside the cell is greyed; the cell is never covered
    mixup: NonNegative = 0.0  # alpha of the Beta distribution two cells are blended by, with masks and labels; 0: never
    cutmix: NonNegative = 0.0  # alpha for a rectangle from another cell; labels weigh by what shows of either cell
    mix_share: Fraction = 1.0  # of the batches that mixup or cutmix change

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("preset"), str):
            return {**AUGMENT_PRESETS.get(value["preset"], {}), **value}
        return value


SMOTE_FAMILY = ("smote", "borderline-smote-1", "borderline-smote-2", "svm-smote", "adasyn", "smote-tomek", "smote-enn")


class ResampleConfig(Settings):
    """How training rows are balanced over the classes; never touches held-out rows.

    ``undersample``, ``oversample`` and ``weighted`` (classes drawn alike, anew in every epoch) choose among real
    cells. The others are of the SMOTE family of imbalanced-learn: they invent cells between neighbours of one class,
    in ``space: pixels`` (as the published study did; masks are made binary again) or between frozen ``features``.
    """

    method: Literal[
        "none", "undersample", "oversample", "weighted", "smote", "borderline-smote-1", "borderline-smote-2",
        "svm-smote", "adasyn", "smote-tomek", "smote-enn",
    ] = "none"  # fmt: skip
    space: Literal["auto", "pixels", "features"] = "auto"  # auto: features for a head, pixels for fine-tuning
    neighbours: Annotated[int, Field(ge=1, le=50)] = 5  # of the SMOTE family; fewer where a class is smaller
    px: Annotated[int, Field(ge=16, le=512)] | None = None  # side for SMOTE in pixels; None: the window's


class EvaluateConfig(Settings):
    """How numbers get their uncertainty."""

    n_bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: int = 0
    interval: Literal["percentile", "bca"] = "bca"  # of bootstrap draws; both widened for few animals
    stratify: Literal["none", "group"] = "none"  # group: each draw keeps the number of animals of every group
    n_permutations: Annotated[int, Field(ge=100, le=1_000_000)] = 2000  # of the comparison of two models
    conformal: Annotated[float, Field(gt=0.5, lt=1)] = 0.9  # share of each class whose set must hold the true class
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.0  # abstain where the largest probability is below; 0: never


class QuantifyConfig(Settings):
    """How damage is estimated from predicted cells."""

    # adjusted: by the confusion matrix; probabilistic: by mean probabilities; em: prior shift (Saerens 2002)
    correction: Literal["none", "adjusted", "probabilistic", "em"] = "probabilistic"
    control: str | None = None  # the group others are compared with; None: the first of the study
    n_bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 2000
    n_permutations: Annotated[int, Field(ge=100, le=1_000_000)] = 10_000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: int = 0


Line = Annotated[str, Field(pattern=r"^[^\r\n]*$")]  # goes into a script as one line
Word = Annotated[str, Field(pattern=r"^[^\s]+$")]


class SlurmConfig(Settings):
    """What a job of a cluster asks for; None leaves it to the cluster."""

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    # of one job: days-hours:minutes:seconds, hours:minutes:seconds or minutes; a task goes on after it
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$")] = "4:00:00"
    gpus: Annotated[int, Field(ge=0)] = 0  # of one job
    cpus: Annotated[int, Field(ge=1)] = 4  # of one job
    mem: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] = "8G"  # of one job
    modules: tuple[Word, ...] = ()  # for 'module load'
    setup: tuple[Line, ...] = ()  # lines of shell before the work, such as 'source /opt/venv/bin/activate'
    options: tuple[Line, ...] = ()  # further lines behind '#SBATCH', such as '--exclude=node7'
    # the interpreter on the nodes; None: the one that submits
    python: Line | None = None
    # words before the interpreter, such as 'apptainer exec --nv /images/perikarya.sif'
    container: Line | None = None
    signal_s: Annotated[int, Field(ge=10, le=3600)] = 60  # before the time limit: state is saved and the job requeued
    tasks_per_job: Annotated[int, Field(ge=1)] = 1  # done one after another; more spare the scheduler and start-up
    max_restarts: Annotated[int, Field(ge=0)] = 20  # of one job, whatever for, before it counts as failed

    @field_validator("time", mode="before")
    @classmethod
    def _is_no_number(cls, value: Any) -> Any:
        if isinstance(value, int):
            raise ValueError('YAML takes a time without quotes for a number; write "4:00:00", or "30" for minutes')  # noqa: TRY004 - pydantic tells only of these
        return value


class RayConfig(Settings):
    """What a task asks of a Ray cluster."""

    address: Word | None = None  # of a running cluster, 'auto' for the one of this machine; None: start one here
    gpus: Annotated[float, Field(ge=0)] | None = None  # per task; None: one where the cluster has any
    retries: Annotated[int, Field(ge=0)] = 2  # of a task whose worker or node died


class LaunchConfig(Settings):
    """Where tasks run; outside the hash, for it must not change what is computed."""

    engine: Literal["local", "slurm", "ray"] = "local"
    # at once; None: local one per GPU, else 1; Slurm and Ray as many as the cluster takes
    jobs: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None  # per process; None: cores / jobs, on Slurm cpus of a job
    # one training on so many GPUs (or processes) of one machine; each batch is shared out among them
    processes_per_task: Annotated[int, Field(ge=1, le=64)] = 1
    tracking: tuple[Literal["mlflow", "tensorboard"], ...] = ()
    mlflow_uri: Line | None = None  # None: a folder beside the run
    slurm: SlurmConfig = SlurmConfig()
    ray: RayConfig = RayConfig()


Channels = Literal["rgb+mask", "rgb", "mask", "masked-rgb"]


class ModelConfig(Settings):
    """One row of the benchmark: a network, where its weights come from and how it is trained.

    ``train``, ``head``, ``augment`` and ``resample`` override single settings of the experiment's sections for this
    model.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}(@[0-9]+)?$")]  # @8: trained on 8 animals
    arch: str = ""
    strategy: Literal["auto", "head", "finetune", "head-then-finetune", "lora"] = "auto"
    # default (the zoo's), imagenet, none, a local .safetensors / .pth file, or hf-hub:owner/name
    weights: str = "default"
    channels: Channels = "rgb+mask"  # what the network is shown; masked-rgb: black outside the outline
    input_px: Annotated[int, Field(ge=16, le=1024)] | None = None  # None: the zoo's size for the strategy
    mask_init: Literal["zero", "mean", "random"] = "zero"
    train_subjects: Annotated[int, Field(ge=1)] | None = None  # train on so many animals (or images); None: on all
    train: dict[str, Any] = Field(default_factory=dict)
    head: dict[str, Any] = Field(default_factory=dict)
    augment: dict[str, Any] = Field(default_factory=dict)
    resample: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and not value.get("arch") and "name" in value:
            value = {**value, "arch": value["name"]}
        return value
