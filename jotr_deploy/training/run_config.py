"""Configuration of a training run: a TOML file, overrides, and the file that a run keeps."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from jotr_deploy.config import first_fault
from jotr_deploy.errors import JotrDeployError, first_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Model = TypeVar("Model", bound=BaseModel)
Count = Annotated[int, Field(ge=1, le=1 << 40)]
NotNegative = Annotated[int, Field(ge=0, le=1 << 40)]


class TrainingError(JotrDeployError):
    """A training configuration or run directory that does not fit."""


class Evaluation(BaseModel):
    """The table `[evaluation]`: what is measured on held-out samples during a run."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    every: Count
    """Steps between two evaluations; the start and the last step are evaluated too."""
    samples: Count | None = None
    """Drawn pictures or people to measure, by default 256; of a data set people, by default all."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 2000
    """Seed of drawn samples: neither that of the training, nor 1000, which `eval` measures on."""
    set: str | None = None
    """Data set of the task `jotr`, by default 3dpw."""
    split: str | None = None
    """Its split, by default validation."""
    figure: str | None = None
    """Figure that decides which weights are best; by default the task's first."""
    patience: Count | None = None
    """Evaluations in a row without a better figure that end the run; by default none do."""


class TrainConfig(BaseModel):
    """Settings of the loop; the table named like the task is the task's own."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: str
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    steps: Count | None = None
    epochs: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Length in place of `steps`, for tasks on data sets; `make_task` computes the steps from their size."""
    batch: Count
    """Samples a step in every process."""
    lr: Annotated[float, Field(gt=0)]
    """Learning rate of AdamW."""
    beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """AdamW's decay rate of the mean squared gradient."""
    matrix_lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of Muon, which then updates the large matrices instead of AdamW (`optimizers`)."""
    kernel_lr: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of Muon for the kernels of convolutions, which it then updates likewise."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: NotNegative = 0
    """Steps in which the learning rates rise linearly."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning-rate schedule after the warm-up; cosine ends at zero."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Norm to which gradients of a step are clipped; published: no clipping."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    workers: NotNegative = 0
    """Processes that make samples; 0 makes them in the training process."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 5.0
    evaluation: Evaluation | None = None
    options: dict[str, Any] = {}
    """The task's table."""

    @model_validator(mode="after")
    def _length(self) -> TrainConfig:
        if self.steps is None and self.epochs is None:
            raise ValueError("steps: neither steps nor epochs is given")
        return self

    @property
    def last_step(self) -> int:
        """Number of steps of the whole run; known once `make_task` has resolved the epochs."""
        assert self.steps is not None, "epochs that make_task has not resolved"
        return self.steps

    def as_toml(self) -> str:
        """Text of a file that gives this configuration again."""
        import tomli_w

        return tomli_w.dumps({**self.model_dump(exclude={"options"}, exclude_none=True), self.task: self.options})


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration.

    Args:
        path: TOML; `task`, the fields of `TrainConfig`, and a table named like the task.
        overrides: `key=value` each, in dotted keys: `lr=1e-3`, `mesh.intra=0.1`. A value that is not TOML is text.
            Each of `steps` and `epochs` takes the place of the other.

    Raises:
        TrainingError: no such file, not TOML, an unknown or a missing key, a value of the wrong kind.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such configuration", "configs/ holds those of this project") from None
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be read ({error.strerror})", "check the path and its permissions"
        ) from None
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: not TOML ({first_line(error)})", "correct it; https://toml.io") from None
    for override in overrides:
        _override(content, override)
    overridden = {override.partition("=")[0].strip() for override in overrides}
    for length, other in (("steps", "epochs"), ("epochs", "steps")):
        if length in overridden and other not in overridden:
            content.pop(other, None)
    task = content.get("task")
    options = content.pop(task, {}) if isinstance(task, str) else {}
    if not isinstance(options, dict):
        raise TrainingError(f"{path}: {task} is not a table", f"write its options under [{task}]")
    if "options" in content:
        raise TrainingError("options: unknown key", f"write the task's options under [{task}]")
    return validated(TrainConfig, {**content, "options": options}, "")


def validated(model: type[Model], values: Mapping[str, Any], prefix: str) -> Model:
    """`values` as a pydantic model; the first invalid one raises a TrainingError that names it with `prefix`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = prefix + ".".join(map(str, first["loc"]))
        known = ", ".join(sorted(set(model.model_fields) - {"options"}))
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            raise TrainingError(f"{name}: unknown key", f"known are {known}") from None
        raise TrainingError(f"{prefix}{first_fault(error)}", "correct it in the configuration") from None


def _override(content: dict[str, Any], text: str) -> None:
    name, equals, value = text.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or not all(keys):
        raise TrainingError(f"--set {text}: not key=value", "give one such as lr=1e-3 or mesh.intra=0.1")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    for key in keys[:-1]:
        content = content.setdefault(key, {})
        if not isinstance(content, dict):
            raise TrainingError(f"--set {text}: {key} is not a table", "only tables have keys below them")
    content[keys[-1]] = parsed
