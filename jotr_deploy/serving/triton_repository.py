"""A model repository for NVIDIA Triton: the networks of a bundle, and the whole pipeline over them in Python.

    detector/1/model.onnx   pose/1/model.onnx   mesh/1/model.onnx   engines beside them, by compute capability
    people/1/model.py       calls the three through Triton, which batches them across requests
    people/1/bundle/        manifest, triangles and the body, whose files are shared with the other models

An ensemble would need one batch size throughout, while a picture has any number of people; so `people` is a Python
model that calls the networks (business logic scripting). Everything is written out in the configurations, so that
Triton may run with `--disable-auto-complete-config`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jotr_deploy.bundle import Bundle, FileEntry, new_directory, write_manifest
from jotr_deploy.errors import BundleError, OutputError
from jotr_deploy.runtime.sessions import Session, TensorSpec, open_session
from jotr_deploy.serving.pipeline_tensors import INPUTS, OUTPUTS, PEOPLE
from jotr_deploy.support.writing import output_errors

ROLES = ("detector", "pose", "mesh")
MAX_BATCH = 16
"""The pipeline sends up to 16 rows in a request, and Triton refuses more than its `max_batch_size`."""
WARMED = (1, 2, 4, 8, 16)
MOST_QUEUED = 128
TIMEOUT_US, DELAY_US = 30_000_000, 0
INSTANCES = 4
"""Processes of the pipeline: as many pictures are worked on at once, as each waits while a network works."""
DTYPES = {
    "float32": "TYPE_FP32", "float16": "TYPE_FP16", "float64": "TYPE_FP64", "bool": "TYPE_BOOL",
    **{f"{kind}{bits}": f"TYPE_{kind.upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
}  # fmt: skip
WIRE = {"BYTES": "TYPE_STRING", "BOOL": "TYPE_BOOL"}
MODEL_PY = '''"""The whole pipeline as a Python model of Triton; see `docs/serving.md` of jotr-deploy."""

from jotr_deploy.serving.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
NETWORKS = "networks.json"


class Enum(str):
    """Name of a value, which the text format writes without quotes."""


@dataclass(frozen=True)
class Repository:
    """The files written."""

    models: tuple[str, ...]
    engines: tuple[str, ...]  # plans for TensorRT, which need a Triton with the TensorRT that built them
    tensorrt: tuple[str, ...]  # versions that built them
    plugin: bool  # they need the plugin library


def write_repository(bundle: Bundle, directory: Path, device: str = "auto") -> Repository:
    """Write the repository into a new directory, which appears whole or not at all.

    Args:
        bundle: with a detector and a pose network.
        directory: to make.
        device: "cpu" for ONNX Runtime on the CPU; "cuda" for a GPU, with the TensorRT engines of the bundle where there
            are some; "auto" for a GPU if there are any.

    Raises:
        BundleError: a network is missing, damaged, or takes fewer rows than the pipeline sends.
        OutputError: the directory exists, or cannot be written.
    """
    with output_errors(directory):
        if directory.exists():
            raise OutputError(f"{directory}: already exists", "give a new directory to --triton")
    for role in ROLES[:2]:
        if not bundle.has(role):
            raise BundleError(
                f"{bundle.path}: the bundle has no {role}, so it cannot find people",
                f"put it in: jotr-deploy add BUNDLE --{role} FILE",
            )
    plans = {role: [] if device == "cpu" else _plans(bundle, role) for role in ROLES}
    gpu = device == "cuda" or (device == "auto" and any(plans.values()))
    known = {}
    with new_directory(directory, replace=None) as place:
        for role in ROLES:
            first = bundle.file(role)
            with open_session(first, device="cpu") as session:
                known[role] = described(session)
                config = _network_config(role, session, plans[role], gpu)
            folder = place / role / "1"
            folder.mkdir(parents=True)
            if not plans[role]:
                _put(first, folder / "model.onnx")
            for plan in plans[role]:
                _put(bundle.file(role, plan.name), folder / plan.name)
            (place / role / "config.pbtxt").write_text(text_format(config))
        _write_pipeline(bundle, place / PEOPLE, known)
    used = [plan for each in plans.values() for plan in each]
    versions = dict.fromkeys(plan.built_with.get("tensorrt", "unknown") for plan in used)
    plugin = any(plan.built_with.get("plugin") == "library" for plan in used)
    return Repository((*ROLES, PEOPLE), tuple(plan.name for plan in used), tuple(versions), plugin)


def described(session: Session) -> dict[str, Any]:
    """Tensors and metadata of a network, from which `triton_model` makes a session that looks like it."""

    def tensors(specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
        return {name: [spec.dtype.name, list(spec.shape)] for name, spec in specs.items()}

    return {
        "inputs": tensors(session.inputs),
        "outputs": tensors(session.outputs),
        "metadata": dict(session.metadata),
    }


def text_format(message: Mapping[str, Any]) -> str:
    """A message in the text format of protocol buffers: mappings are messages, lists are repeated fields."""
    return "\n".join(_lines(message)) + "\n"


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in message.items():
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, Mapping):
                yield f"{indent}{name} {{"
                yield from _lines(each, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_scalar(each)}"


def _scalar(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, str):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plans(bundle: Bundle, role: str) -> list[FileEntry]:
    """Engines of a role, the newest for each compute capability, that take as many rows as the pipeline sends."""
    found: dict[str, FileEntry] = {}
    for entry in bundle.manifest.files:
        if entry.role == role and entry.backend == "tensorrt" and not entry.only_parsed:
            largest = (entry.batch or "").rpartition(":")[2]
            if largest.isdigit() and int(largest) < MAX_BATCH:
                raise BundleError(
                    f"{bundle.path}: {entry.name} takes at most {largest} rows, the pipeline sends up to {MAX_BATCH}",
                    f"build it with a batch up to {MAX_BATCH}, or give --device cpu",
                )
            found[entry.built_with.get("capability", "")] = entry
    return list(found.values())


def _network_config(role: str, session: Session, plans: Sequence[FileEntry], gpu: bool) -> dict[str, Any]:
    batched = all(spec.shape and not isinstance(spec.shape[0], int) for spec in
                  (*session.inputs.values(), *session.outputs.values()))  # fmt: skip
    skip = 1 if batched else 0

    def tensors(specs: Mapping[str, TensorSpec]) -> list[dict[str, Any]]:
        return [
            {"name": name, "data_type": _type(spec.dtype), "dims": _dims(spec.shape[skip:])}
            for name, spec in specs.items()
        ]

    config: dict[str, Any] = {
        "name": role,
        "backend": "tensorrt" if plans else "onnxruntime",
        "max_batch_size": MAX_BATCH if batched else 0,
        "version_policy": {"latest": {"num_versions": 1}},
        "input": tensors(session.inputs),
        "output": tensors(session.outputs),
        "instance_group": [{"kind": Enum("KIND_GPU" if gpu else "KIND_CPU"), "count": 1}],
    }
    if plans:
        config["default_model_filename"] = plans[0].name
        known = [plan for plan in plans if "capability" in plan.built_with]
        names = [{"key": plan.built_with["capability"], "value": plan.name} for plan in known]
        config["cc_model_filenames"] = names
    else:
        config["default_model_filename"] = "model.onnx"
    if batched:
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": DELAY_US,
            "default_queue_policy": {
                "timeout_action": Enum("REJECT"),
                "default_timeout_microseconds": TIMEOUT_US,  # at 0 a client's own timeout would be ignored
                "allow_timeout_override": True,
                "max_queue_size": MOST_QUEUED,
            },
        }
        config["model_warmup"] = _warmup(config["input"])
    if not gpu:
        config["parameters"] = [{"key": "intra_op_thread_count", "value": {"string_value": "0"}}]  # all cores
    return config


def _warmup(inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One request of every batch size; none for a network whose sizes are open."""
    if any(-1 in tensor["dims"] for tensor in inputs):
        return []
    return [
        {
            "name": f"batch_{size}",
            "batch_size": size,
            "inputs": [
                {
                    "key": tensor["name"],
                    "value": {"data_type": tensor["data_type"], "dims": tensor["dims"], "zero_data": True},
                }
                for tensor in inputs
            ],
        }
        for size in WARMED
    ]


def _write_pipeline(bundle: Bundle, place: Path, known: Mapping[str, Any]) -> None:
    folder = place / "1"
    (folder / "bundle").mkdir(parents=True)
    kept = [bundle.entry(role) for role in (*ROLES, "faces") if bundle.has(role)]
    for entry in kept:
        _put(bundle.file(entry.role, entry.name), folder / "bundle" / entry.name)
    write_manifest(folder / "bundle", bundle.manifest.model_copy(update={"files": tuple(kept)}))
    (folder / NETWORKS).write_text(json.dumps(known, indent=2) + "\n")
    (folder / "model.py").write_text(MODEL_PY)
    config = {
        "name": PEOPLE,
        "backend": "python",
        "max_batch_size": 0,
        "default_model_filename": "model.py",
        "version_policy": {"latest": {"num_versions": 1}},
        "input": [{**_wire(tensor), "optional": True} for tensor in INPUTS],
        "output": [_wire(tensor) for tensor in OUTPUTS],
        "instance_group": [{"kind": Enum("KIND_CPU"), "count": INSTANCES}],
    }
    (place / "config.pbtxt").write_text(text_format(config))


def _wire(tensor: Mapping[str, Any]) -> dict[str, Any]:
    kind = tensor["datatype"]
    return {"name": tensor["name"], "data_type": Enum(WIRE.get(kind, f"TYPE_{kind}")), "dims": tensor["shape"]}


def _type(dtype: np.dtype[Any]) -> Enum:
    if dtype.name not in DTYPES:
        raise BundleError(f"a tensor is {dtype.name}, which Triton does not have", "export the network in float32")
    return Enum(DTYPES[dtype.name])


def _dims(shape: Sequence[int | str]) -> list[int]:
    return [size if isinstance(size, int) else -1 for size in shape] or [1]


def _put(source: Path, target: Path) -> None:
    """A file at a second place: the same one where the disk allows it, so that weights are not stored twice."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
