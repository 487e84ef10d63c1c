"""JOTR from a checkpoint to meshes: `load` a bundle and call it, or see `jotr-deploy --help`.

>>> import jotr_deploy as jd
>>> with jd.load("starter") as model:
...     people = model("photo.jpg")  # doctest: +SKIP

The names below are imported on first use, so importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jotr_deploy.api import build_engine, evaluate, export_bundle, load
    from jotr_deploy.errors import JotrDeployError
    from jotr_deploy.people import People, Person
    from jotr_deploy.runtime.detections import Detections
    from jotr_deploy.runtime.loaded_model import Model

__all__ = [
    "Detections",
    "JotrDeployError",
    "Model",
    "People",
    "Person",
    "build_engine",
    "evaluate",
    "export_bundle",
    "load",
]

_HOMES = {
    "Detections": "runtime.detections",
    "JotrDeployError": "errors",
    "Model": "runtime.loaded_model",
    "People": "people",
    "Person": "people",
    "build_engine": "api",
    "evaluate": "api",
    "export_bundle": "api",
    "load": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
