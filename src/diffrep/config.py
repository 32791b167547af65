"""Settings: frozen and validated; read from a file, changed by name=value, saved beside a run."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from diffrep.budget import Budget
from diffrep.errors import UserError, unknown
from diffrep.files import unsealed
from diffrep.kinds import ENCODERS, PRIORS, one_of
from diffrep.older_settings import VERSION, migrated

Share = Annotated[float, Field(ge=0, lt=1)]


def _is_budget(text: str) -> str:
    Budget.parse(text)
    return text


def _listed(value: object) -> object:
    """ "a,b" -> its names."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return tuple(value) if isinstance(value, list) else value


Amount = Annotated[str, AfterValidator(_is_budget)]  # of training, such as 10m
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Guessed = Literal["auto", "yes", "no"]


class Frozen(BaseModel):
    """Values that are checked strictly and never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataSettings(Frozen):
    """Where the examples come from, and how they are split."""

    source: str = Field(default="digits", min_length=1, description="name of a data set, or a path")
    valid: Share = Field(default=0.1, description="share of examples kept for choosing between models")
    test: Share = Field(default=0.2, description="share of examples kept for the final numbers")
    skip_bad: bool = Field(default=False, description="go on without files that cannot be read")
    label_column: str | None = Field(default=None, description="column of the labels, or a depth of folders: folder:2")
    unlabelled: str = Field(default="auto", description="the number that stands for no label: auto, none, -1, ...")
    columns: Names = Field(default=(), description="feature columns, or all; empty: of numbers, and of a few words")
    drop: Names = Field(default=(), description="columns that are ignored")
    column: str | None = Field(default=None, description="column of the pictures, or array of the examples in an .npz")
    split_column: str | None = Field(default=None, description="column that holds train, valid or test for each row")
    covariate: str | None = Field(default=None, description="column that the decoder alone gets, such as a batch")
    layout: str = Field(default="auto", description="axes of an array: nhwc, nchw, nhw, ncl, nlc, ndhw, ncdhw, ...")
    levels: int | None = Field(default=None, ge=2, description="grey levels, such as 4096 for 12 bits")
    range: tuple[float, float] | None = Field(default=None, description="values that become -1 and 1")
    counts: Guessed = Field(default="auto", description="whether a table holds counts, to be made relative and log")
    size: int | tuple[int, int] | None = Field(default=None, description="side, or [h, w], to resize pictures to")
    header: Guessed = Field(default="auto", description="whether the first line of a .csv file names columns")
    delimiter: str | None = Field(default=None, min_length=1, description="a character, tab or semicolon")
    config: str | None = Field(default=None, description="configuration of a hub data set that has several")

    def how(self) -> dict[str, Any]:
        """The settings of how to read the data, as the arguments of `diffrep.data.Reading.asked`."""
        return self.model_dump(exclude={"source", "valid", "test", "skip_bad"})

    @model_validator(mode="after")
    def _some_are_left(self) -> DataSettings:
        if self.valid + self.test >= 1:
            raise ValueError(f"expected valid + test below 1, got {self.valid} + {self.test}.")
        return self


class DecoderSettings(Frozen):
    """The network that removes noise."""

    kind: Literal["auto", "unet", "mlp"] = Field(default="auto", description="network; auto: unet, or mlp for vectors")
    width: PositiveInt = Field(default=16, description="channels at full resolution; vectors: 8 times as many units")
    multipliers: tuple[PositiveInt, ...] = Field(default=(1, 2, 4), min_length=1, description="of width, finest first")
    blocks: PositiveInt = Field(default=1, description="residual blocks at each resolution; vectors: one more")
    condition_width: PositiveInt | None = Field(default=None, description="size of the embeddings of noise and code")
    patch: PositiveInt | None = Field(default=None, description="pixels a side that unet sees as one; none: by detail")
    attention: tuple[bool, ...] = Field(default=(), description="self-attention at each resolution, finest first")
    fourier: tuple[int, ...] = Field(default=(), description="n of the added features sin(2^n pi x), cos(2^n pi x)")
    dropout: Share = Field(default=0.0, description="share of features dropped in training")
    observe_code: bool | None = Field(
        default=None, description="combine x_t with an estimate of x from the code; none: where predicts can"
    )
    by_place: bool = Field(
        default=True, description="precondition by one histogram for each group of alike places, not one for all places"
    )
    mixture: bool = Field(default=True, description="precondition by histograms of each latent class of examples")
    draw_code: bool = Field(default=True, description="add the code to the input of the network as feature maps")
    code_until: float | None = Field(
        default=None, description="log-SNR above which the decoder does not get the code; none: it always gets it"
    )
    start: Literal["matched", "normal", "gaussian"] = Field(
        default="matched",
        description="p(x_1) of vdm and vae-vdm: moments of the data by place, N(0, I), or Gaussian given z",
    )


class EncoderSettings(Frozen):
    """The network that reads a clean example."""

    kind: Annotated[str, one_of("auto", *ENCODERS)] = Field(default="auto", description="auto: conv, or mlp")
    width: PositiveInt = Field(
        default=16,
        description="channels of conv's first stage; a layer of mlp has 8 times as many units, a token of vit 4 times",
    )
    depth: PositiveInt | None = Field(
        default=None,
        description="layers: of vit and mlp any number, none: 4; of wideresnet 10, 16, 22 or 28 (6 n + 4), none: 28",
    )
    widen: PositiveInt = Field(default=2, description="widening factor of wideresnet")
    patch: PositiveInt = Field(default=4, description="side of a patch of vit, in pixels")
    dropout: Share = Field(default=0.0, description="share of features dropped in training")


class CodeSettings(Frozen):
    """The code z, and the weight of its rate."""

    kind: Literal["auto", "gaussian", "fixed-rate", "categorical"] = Field(
        default="auto", description="type of a random code; auto: gaussian; fixed-rate: its rate is always code.rate"
    )
    dim: PositiveInt | None = Field(default=None, description="numbers in a code; none: 32, or 64 for 256 or more of x")
    classes: int = Field(default=8, ge=2, description="classes of each of the dim / classes variables of a categorical")
    detail: str = Field(
        default="auto",
        description="level of detail: which noise levels train the encoder; decoder: those of the decoder",
    )
    drop: Share = Field(default=0.1, description="share of examples in training whose code the decoder does not get")
    rate: PositiveFloat | None = Field(default=None, description="target of the rate in nats, held by a multiplier")
    beta: NonNegativeFloat | None = Field(default=None, description="weight of the rate; none: the method's own")
    l1: NonNegativeFloat = Field(default=0.0, description="weight of the L1 norm of the code")
    mmd: NonNegativeFloat = Field(default=0.0, description="weight of the MMD of a batch's codes to N(0, I)")
    free_bits: NonNegativeFloat = Field(default=0.0, description="nats of rate without a penalty in training")
    warmup: int = Field(default=0, ge=0, description="steps over which beta rises from 0")
    cycle: int = Field(default=0, ge=0, description="steps of a cycle in whose first half beta rises from 0")
    extra_steps: int = Field(default=0, ge=0, description="extra updates of the encoder alone at each step of training")
    extra_until: int = Field(
        default=0, ge=0, description="steps that have extra_steps; 0: those at which the rate is below its target"
    )

    @model_validator(mode="after")
    def _one_price(self) -> CodeSettings:
        set_ = [name for name in ("rate", "free_bits", "warmup", "cycle") if getattr(self, name)]
        if len(set_) > 1 or (self.rate is not None and self.beta is not None):
            raise ValueError(
                f"expected one way to price the rate, got {' and '.join(set_ if len(set_) > 1 else ['rate', 'beta'])}."
            )
        return self

    def size(self, shape: Sequence[int]) -> int:
        """Numbers in the code of an example of this shape: `dim`; none: 64 for 256 or more of x, else 32."""
        return self.dim or (64 if math.prod(shape) >= 256 else 32)


class PriorSettings(Frozen):
    """The prior p(z): trained together with random codes, or fitted to deterministic codes after training."""

    kind: Annotated[str, one_of("auto", "normal", *PRIORS, "autoregressive", "afterwards")] = Field(
        default="auto",
        description="family; auto: normal; for vae-vdm and vdrl afterwards: a mixture fitted after training",
    )
    components: PositiveInt = Field(default=20, description="number of Gaussians in a mixture")


class AnnealSettings(Frozen):
    """Changes to the weight of the decoder's loss early in training, so that the code gets used."""

    steps: int = Field(default=0, ge=0, description="steps over which factor moves to 1 and detail to the method's own")
    factor: PositiveFloat = Field(default=1.0, description="factor on the decoder's loss at the start")
    detail: str | None = Field(default=None, description="level of detail at the start: high-noise, band:a:b, ...")

    @model_validator(mode="after")
    def _has_an_end(self) -> AnnealSettings:
        changes = self.factor != 1 or self.detail is not None
        if changes != (self.steps > 0):
            raise ValueError(
                f"expected steps above 0 together with a factor or a detail to start from, got steps={self.steps},"
                f" factor={self.factor}, detail={self.detail}."
            )
        return self


class ViewSettings(Frozen):
    """Views: random changes of an example, for methods that learn from several views of it."""

    crop: float = Field(default=0.6, gt=0, le=1, description="least share of each axis that a crop of a picture keeps")
    flip: bool = Field(default=False, description="mirror half of the pictures; leave it off for digits and letters")
    jitter: Share = Field(default=0.2, description="largest change of contrast and brightness of a picture")
    erase: Share = Field(default=0.4, description="largest share of each axis that a blank box in a picture covers")
    drop: Share = Field(default=0.2, description="share of the numbers of a vector or signal that are set to zero")
    noise: NonNegativeFloat = Field(default=0.1, description="standard deviation of noise added to each number")
    thin: Share = Field(default=0.5, description="share of a cell's counts that soda encodes, to make the rest; 0: off")
    contrast: NonNegativeFloat = Field(default=50.0, description="weight of the loss of soda-simclr between two views")
    denoise_every: PositiveInt = Field(default=4, description="n: soda-simclr denoises each n-th example of a batch")
    mask: PositiveFloat = Field(default=0.75, lt=1, description="share of the patches that mae hides")


class NoiseSettings(Frozen):
    """The forward process."""

    kind: Literal["auto", "ve", "vp", "subvp", "cosine", "linear", "learned-ends", "learned"] = Field(
        default="auto", description="process; auto: that of the method's paper"
    )
    gamma_0: float | None = Field(
        default=None, description="-log SNR at t = 0, for linear, learned and cosine; none: by sigma_0"
    )
    sigma_0: PositiveFloat = Field(default=0.125, description="sigma / alpha at t = 0 in grey levels, without gamma_0")
    gamma_1: float = Field(default=5.0, description="-log SNR at t = 1, for linear and learned")
    steps: PositiveInt | None = Field(
        default=None, description="number of steps T of the chain that vdm and vae-vdm train on; none: continuous time"
    )
    sigma_min: PositiveFloat = Field(default=0.01, description="least sigma of ve")
    sigma_max: PositiveFloat = Field(default=50.0, description="largest sigma of ve")
    beta_min: PositiveFloat = Field(default=0.1, description="beta at t = 0 of vp and subvp")
    beta_max: PositiveFloat = Field(default=20.0, description="beta at t = 1 of vp and subvp")

    @model_validator(mode="after")
    def _rising(self) -> NoiseSettings:
        for low, high in (("gamma_0", "gamma_1"), ("sigma_min", "sigma_max"), ("beta_min", "beta_max")):
            if getattr(self, low) is not None and not getattr(self, low) < getattr(self, high):
                raise ValueError(f"expected {low} below {high}, got {getattr(self, low)} and {getattr(self, high)}.")
        return self


class TrainSettings(Frozen):
    """How the weights are trained."""

    budget: Amount = Field(default="60s", description="amount of training: 120s, 10m, 20000ex or 3epochs")
    batch: PositiveInt = Field(default=64, description="examples in a step, summed over processes and micro-batches")
    accumulate: PositiveInt = Field(default=1, description="micro-batches in a step; more save memory")
    optimizer: Literal["muon", "adamw"] = Field(default="muon", description="of kernels; adamw for all other weights")
    lr: PositiveFloat = Field(default=4e-3, description="largest learning rate")
    beta1: Share = Field(default=0.9, description="decay of AdamW's mean of gradients")
    beta2: Share = Field(default=0.99, description="decay of AdamW's mean of squared gradients")
    weight_decay: NonNegativeFloat = Field(default=0.01, description="AdamW's decay of matrices and kernels")
    warmup: Share = Field(default=0.02, description="share of the budget over which the learning rate rises")
    schedule: Literal["cosine", "constant"] = Field(default="cosine", description="learning rate after the rise")
    clip: PositiveFloat | None = Field(default=1.0, description="largest gradient norm of a group; none: no limit")
    ema: Share = Field(default=0.999, description="decay of the moving average of the weights")
    precision: Literal["no", "bf16", "fp16"] = Field(default="no", description="mixed precision; no: float32")
    compile: bool = Field(default=False, description="compile the model at the first step")
    channels_last: bool = Field(default=True, description="memory layout of images that is faster for convolutions")
    shard: bool = Field(default=False, description="each process of several holds a part of the weights (FSDP)")
    workers: int = Field(default=0, ge=0, description="processes that read data too large for memory")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one")
    log_every: PositiveInt = Field(default=20, description="steps between two lines of metrics.jsonl")
    checkpoint_every: PositiveInt = Field(default=500, description="steps between two checkpoints")
    patience: int = Field(
        default=0, ge=0, description="log lines without a better validation bound that end training; 0: never"
    )
    trackers: tuple[str, ...] = Field(default=(), description="further places to log to, such as tensorboard")


class Settings(Frozen):
    """All that defines a run."""

    method: str = Field(default="vae-vdm", min_length=1, description="name of the method; `diffrep methods` lists them")
    seed: int = Field(default=0, ge=0, description="seed of all random numbers of the run")
    data: DataSettings = Field(default=DataSettings(), description="examples and splits")
    decoder: DecoderSettings = Field(default=DecoderSettings(), description="network that removes noise")
    encoder: EncoderSettings = Field(default=EncoderSettings(), description="network that reads a clean example")
    code: CodeSettings = Field(default=CodeSettings(), description="the code and its cost")
    prior: PriorSettings = Field(default=PriorSettings(), description="distribution of codes")
    anneal: AnnealSettings = Field(default=AnnealSettings(), description="weights that change early in training")
    views: ViewSettings = Field(default=ViewSettings(), description="random changes of examples, for simclr and others")
    noise: NoiseSettings = Field(default=NoiseSettings(), description="forward process")
    detail: str = Field(
        default="auto",
        description="level of detail, a weighting of noise levels (vae-vdm: for its code): coarse, band:a:b",
    )
    predicts: Literal["auto", "eps", "x", "v", "score", "edm", "marginal"] = Field(
        default="auto", description="what the output of the decoder means"
    )
    train: TrainSettings = Field(default=TrainSettings(), description="optimiser, budget, log")


def load(path: str | Path, changes: Sequence[str] = ()) -> Settings:
    """Settings from a TOML or JSON file, defaults where it is silent, then changes as in `override`."""
    path = Path(path)
    try:
        raw = unsealed(path) if path.suffix == ".json" else tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the settings {path} cannot be read ({error.strerror}): give a TOML or JSON file.") from error
    except ValueError as error:
        raise UserError(f"the settings {path} are not valid {path.suffix[1:].upper() or 'TOML'} ({error}).") from error
    if not isinstance(raw, dict):
        raise UserError(f"the settings {path} must be a table of names and values, got a {type(raw).__name__}.")
    return _validated(_changed(migrated(raw, f"the settings {path}"), changes))


def override(settings: Settings, changes: Sequence[str]) -> Settings:
    """Settings with changes such as "train.lr=1e-3": values as in TOML, bare words as text, none for no value."""
    return _validated(_changed(settings.model_dump(mode="json"), changes))


def stated(settings: Settings) -> dict:
    """Every setting as plain values, with the version of what they mean; `load` reads them from a file of JSON."""
    return {"version": VERSION, **settings.model_dump(mode="json")}


def names(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, str]:
    """Every dotted name and its description."""
    described: dict[str, str] = {}
    for name, info in model.model_fields.items():
        inner = _section(info.annotation)
        described |= names(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}": info.description or ""}
    return described


def chosen(word: str, own: str) -> str:
    """A setting that is a word; the method's own word where it is "auto"."""
    return own if word == "auto" else word


def value(settings: Settings, name: str) -> object:
    """The value of a dotted name."""
    section: object = settings
    for part in name.split("."):
        section = getattr(section, part)
    return section


def _changed(raw: dict, changes: Sequence[str]) -> dict:
    raw = json.loads(json.dumps(raw, default=str))  # plain values: TOML dates become text
    valid = names()
    for change in changes:
        name, equals, text = change.partition("=")
        name = name.strip()
        if not equals:
            raise UserError(f"expected a setting as name=value, got {change!r}: write for example train.lr=1e-3.")
        if name not in valid:
            raise _unknown(name)
        *path, last = name.split(".")
        section = raw
        for part in path:
            section = section.setdefault(part, {})
        section[last] = _value(name, text.strip())
    return raw


def _value(name: str, text: str) -> object:
    model: type[BaseModel] = Settings
    *path, last = name.split(".")
    for part in path:
        model = _section(model.model_fields[part].annotation) or model
    annotation = model.model_fields[last].annotation
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if text in ("none", "None", "null") and type(None) in kinds:
        return None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if str in kinds and not isinstance(value, str) else value  # a folder may be called 2024


def _section(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _unknown(name: str) -> UserError:
    last = name.rpartition(".")[2]
    near = [known for known in names() if known.rpartition(".")[2] == last]
    return unknown("setting", name, names(), "`diffrep settings` lists all.", near)


def _validated(raw: dict) -> Settings:
    try:
        return Settings.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        raise _unknown(name)
    if first["type"] == "value_error":  # our own sentence, complete
        raise UserError(f"setting {name!r}: {first['msg'].removeprefix('Value error, ')}")
    expected = first["msg"].removeprefix("Input should be ").lower()
    raise UserError(f"setting {name!r}: expected {expected}, got {first['input']!r}.")
