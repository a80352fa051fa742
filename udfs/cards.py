"""Model cards: what a file of weights does not say of itself, in a TOML file beside it (`<stem of the weights>.toml`).

- `name`, `version`: they begin the model's id.
- `license` (or `licence`), an SPDX identifier such as "Apache-2.0", and `description`: words for people, in no digest.
- `[input]`: width_px, height_px, layout, channels, scale, mean, std, batch, max_batch. The network is given
  `(pixel * scale - mean) / std`, pixels from 0 to 255.
- `[resize]`: mode, pad_value, placement, rounding, interpolation, antialias.
- `[head]`: kind, masks, strides, labels (or labels_file, a label a line), first_label_id, background_id, many_labels,
  class_wise_nms, nms_iou, max_instances, score_threshold.
- `[head]` of kind "ssd" also: activation, box_form, and where that is "offsets" variances and priors (or priors_file, a
  default box a line): the boxes that the offsets are to, as `cx cy w h` in shares of the input's width and height.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from ._errors import ModelError

_Positive = Annotated[float, Field(gt=0)]
_Share = Annotated[float, Field(ge=-10, le=10)]  # pixels, given for shares, are mostly more
_PositiveShare = Annotated[float, Field(gt=0, le=10)]
_Prior = tuple[_Share, _Share, _PositiveShare, _PositiveShare]
_MAX_LABEL_BYTES = 1 << 20
_MAX_PRIOR_BYTES = 8 << 20


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class InputCard(_Section):
    """What the network is given: float32, NCHW, `(pixel * scale - mean) / std` with pixels from 0 to 255."""

    width_px: int = Field(gt=0, le=8192)
    height_px: int = Field(gt=0, le=8192)
    layout: Literal["NCHW"] = "NCHW"
    channels: Literal["RGB", "BGR"] = "RGB"
    scale: float = Field(default=1 / 255, gt=0)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[_Positive, _Positive, _Positive] = (1.0, 1.0, 1.0)
    batch: int | None = Field(
        default=None, ge=1, le=4096, description="pictures that the file takes; unset: any number"
    )
    max_batch: int | None = Field(default=None, ge=1, description="largest batch that the file takes; unset: any")


class ResizeCard(_Section):
    """How a picture of any size becomes one of the input's size."""

    mode: Literal["stretch", "letterbox"] = "stretch"
    pad_value: int = Field(default=0, ge=0, le=255)
    placement: Literal["top_left", "center"] = "center"
    rounding: Literal["floor", "round", "ceil"] = "round"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    antialias: bool = True


def _digest_of_priors(priors: Sequence[_Prior]) -> str | None:
    """Their SHA-256, which stands for them where a card is written: there may be tens of thousands."""
    return hashlib.sha256(json.dumps(priors).encode()).hexdigest() if priors else None


class HeadCard(_Section):
    """What the network's output means, and how boxes are chosen from it."""

    kind: Literal["yolox", "boxes_scores_labels", "detr", "ssd"]
    masks: Literal["box", "input", "prototypes"] | None = Field(
        default=None, description="what the masks that it puts out are a grid over; unset: there are none"
    )
    strides: tuple[Annotated[int, Field(gt=0)], ...] = ()
    labels: tuple[str, ...] = ()
    labels_file: str | None = None
    first_label_id: int = Field(default=0, ge=0, description="id of the first label, as it is stored")
    background_id: int | None = Field(default=None, description="output index that means nothing is there")
    many_labels: bool = Field(default=False, description="a box may come out once for each label")
    class_wise_nms: bool = True
    nms_iou: float | None = Field(default=None, gt=0, le=1, description="unset: the network has done it")
    max_instances: int = Field(default=300, ge=1)
    score_threshold: float = Field(default=0.3, ge=0, lt=1)
    box_form: Literal["offsets", "xyxy", "cxcywh"] | None = Field(
        default=None, description="what the numbers of a box are: offsets to its prior, or shares of the input"
    )
    priors: Annotated[tuple[_Prior, ...], PlainSerializer(_digest_of_priors)] = Field(
        default=(), description="cx, cy, w, h of default boxes as shares of the input"
    )
    priors_file: str | None = None
    variances: tuple[_Positive, _Positive] = Field(default=(0.1, 0.2), description="of centres, and of log sizes")
    activation: Literal["softmax", "sigmoid", "none"] = Field(default="softmax", description="makes scores of logits")

    @model_validator(mode="after")
    def _check_boxes(self) -> Self:
        allowed = {"activation", "box_form"} if self.kind == "ssd" else set[str]()
        allowed |= {"priors", "variances"} if self.box_form == "offsets" else set()
        unfit = {"activation", "box_form", "priors", "variances"} & self.model_fields_set - allowed
        if unfit:
            form = f" and box_form = {self.box_form!r}" if self.kind == "ssd" and self.box_form else ""
            raise ValueError(f"kind = {self.kind!r}{form} has no {', '.join(sorted(unfit))}")
        if self.kind == "ssd" and self.box_form is None:
            raise ValueError("kind = 'ssd' wants box_form: 'offsets', 'xyxy' or 'cxcywh'")
        if self.box_form == "offsets" and not self.priors:
            raise ValueError("box_form = 'offsets' wants priors, or priors_file with a default box a line")
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        fitting = {"yolox": (None,), "ssd": (None,), "detr": (None, "input")}.get(
            self.kind, (None, "box", "input", "prototypes")
        )
        if self.masks not in fitting:
            allowed = " or ".join(repr(each) for each in fitting if each) or "none"
            raise ValueError(f"masks = {self.masks!r}: allowed with kind = {self.kind!r} is {allowed}")
        if self.kind == "yolox" and not self.strides:
            raise ValueError("kind = 'yolox' wants strides, for example [8, 16, 32]")
        background, is_column = self.background_id, self.kind in ("detr", "ssd")
        if is_column and background is not None and not 0 <= background <= len(self.labels):
            raise ValueError(f"background_id = {background}: allowed is 0 to {len(self.labels)}, or none")
        if not self.labels:
            raise ValueError("labels, or labels_file with a label a line, must name what the network tells apart")
        if len({*self.labels}) != len(self.labels):
            raise ValueError("labels: one of them is there twice")
        return self


class Card(_Section):
    """A model card."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]{0,99}$")
    version: str = Field(pattern=r"^[A-Za-z0-9][\w.-]{0,49}$")
    description: str = ""
    license: str = Field(default="", validation_alias=AliasChoices("license", "licence"))
    input: InputCard
    resize: ResizeCard = ResizeCard()
    head: HeadCard

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels; the id of the first is `head.first_label_id`."""
        return self.head.labels

    def digest(self) -> str:
        """SHA-256 of what can change the output: not of words for people."""
        values = self.model_dump(mode="json", exclude={"description", "license"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def facts(self) -> dict[str, Any]:
        """What the card says beside who the model is and what it tells apart."""
        known: Any = {"name": True, "version": True, "license": True, "head": {"labels", "labels_file", "priors_file"}}
        return self.model_dump(mode="json", exclude=known)


def card_path(weights: str | Path) -> Path:
    """Where the card of a file of weights lies."""
    return Path(weights).with_suffix(".toml")


def read_card(path: str | Path) -> Card:
    """Read a card. Raises ModelError that names file, key, value and what is allowed."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ModelError(f"model card {path} cannot be read: {error.strerror}; it lies beside the weights") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"model card {path} is not valid TOML: {error}") from None
    try:
        # By way of JSON, for strict types know no tuples in TOML.
        return Card.model_validate_json(json.dumps(_with_files(values, path.parent), default=str))
    except ValidationError as error:
        raise ModelError(f"model card {path}: {'; '.join(map(_problem, error.errors()))}") from None


def _problem(found: Any) -> str:
    """One thing that is wrong with a card, as its author knows it."""
    *section, key = map(str, found["loc"]) if found["loc"] else ("card",)
    where = ".".join((*section, key))
    if found["type"] == "extra_forbidden":
        allowed = sorted(_fields(section))
        near = get_close_matches(key, allowed, n=1)
        return f"{where}: unknown key{f'; did you mean {near[0]}?' if near else ''} (allowed: {', '.join(allowed)})"
    if found["type"] == "missing":
        return f"{where} is missing"
    message = found["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{where} = {_short(found['input'])}: {message}" if found["type"] != "value_error" else f"{where}: {message}"


def _fields(section: Sequence[str]) -> Collection[str]:
    """The keys that a section of a card may have."""
    kinds: dict[str, type[BaseModel]] = {"input": InputCard, "resize": ResizeCard, "head": HeadCard}
    return (kinds[section[0]] if section else Card).model_fields.keys()


def _with_files(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values with what is in a label or prior file in its place: that, not the file's name, makes the card."""
    head = values.get("head")
    if not isinstance(head, dict):
        return values
    head = dict(head)
    if isinstance(head.get("labels_file"), str):
        text, _ = _read_beside(head, "labels", folder, most=_MAX_LABEL_BYTES)
        head["labels"] = [line.strip() for line in text.splitlines() if line.strip()]
    if isinstance(head.get("priors_file"), str):
        head["priors"] = _parse_priors(*_read_beside(head, "priors", folder, most=_MAX_PRIOR_BYTES))
    return {**values, "head": head}


def _read_beside(head: dict[str, Any], key: str, folder: Path, *, most: int) -> tuple[str, Path]:
    """Text and path of the file that `<key>_file` names, which is taken out. Raises ModelError."""
    name = f"{key}_file"
    path = folder / head.pop(name)
    if key in head:
        raise ModelError(f"the card beside {path} has both {key} and {name}; leave one of them out")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"{name} {path} lies outside the card's folder; put it beside the card")
    try:
        if path.stat().st_size > most:
            raise ModelError(f"{name} {path} has {path.stat().st_size} bytes; at most {most}")
        return path.read_text(encoding="utf-8"), path
    except (OSError, ValueError) as error:
        raise ModelError(f"{name} {path} cannot be read: {error}") from None


def _parse_priors(text: str, path: Path) -> list[_Prior]:
    """A default box a line. Raises ModelError that shows the first line that is none."""
    kind, priors = TypeAdapter(_Prior), list[_Prior]()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            priors.append(kind.validate_python(tuple(map(float, line.split()))))
        except ValueError:
            raise ModelError(
                f"priors_file {path}, line {number}: {_short(line)}; allowed are four numbers, cx cy w h as shares of "
                "the input (-10 to 10), w and h above 0"
            ) from None
    return priors


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
