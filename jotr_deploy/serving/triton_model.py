"""The whole pipeline as a Python model of Triton: its networks are other models of the same server.

Triton's module `triton_python_backend_utils` exists inside its own processes only, and is imported there.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jotr_deploy.bundle import open_bundle
from jotr_deploy.errors import JotrDeployError, SessionError
from jotr_deploy.runtime.loaded_model import Model
from jotr_deploy.runtime.sessions import Session, TensorSpec, open_session
from jotr_deploy.runtime.sources.images import decode_image
from jotr_deploy.serving.picture_limits import check_picture
from jotr_deploy.serving.pipeline_tensors import INPUTS, OUTPUTS, outputs, read_inputs
from jotr_deploy.serving.refusals import Refused
from jotr_deploy.serving.triton_repository import NETWORKS
from jotr_deploy.support.aliases import Array

MAX_PIXELS, MAX_PEOPLE = 50_000_000, 100


class TritonSession(Session):
    """A network that another model of this server runs."""

    def __init__(self, triton: ModuleType, model: str, path: Path, known: Mapping[str, Any]) -> None:
        """`known` is what `triton_repository.described` said about the network."""

        def specs(tensors: Mapping[str, Any]) -> dict[str, TensorSpec]:
            return {name: TensorSpec(np.dtype(kind), tuple(shape)) for name, (kind, shape) in tensors.items()}

        self._triton, self._model, self.path = triton, model, path
        self.inputs, self.outputs = specs(known["inputs"]), specs(known["outputs"])
        self.metadata = known["metadata"]

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        triton = self._triton
        reply = triton.InferenceRequest(
            model_name=self._model,
            requested_output_names=list(self.outputs),
            inputs=[triton.Tensor(name, array) for name, array in feeds.items()],
        ).exec()
        if reply.has_error():
            raise SessionError(f"{self._model}: {reply.error().message()}", "see the log of Triton")
        return {name: triton.get_output_tensor_by_name(reply, name).as_numpy() for name in self.outputs}


class TritonPythonModel:
    """Interface that Triton calls: `initialize`, `execute`, `finalize`."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the pipeline from the folder of this version of the model."""
        import cv2

        cv2.setNumThreads(1)  # every instance is a process of its own
        self._triton = importlib.import_module("triton_python_backend_utils")
        folder = Path(args["model_repository"]) / args["model_version"]
        known = json.loads((folder / NETWORKS).read_text())

        def opened(role: str, path: Path, device: str, threads: int | None) -> Session:
            if role in known:
                return TritonSession(self._triton, role, path, known[role])
            return open_session(path, device="cpu", threads=1, spinning=False)  # the body, for alignment

        self._model = Model(open_bundle(folder / "bundle"), device="cpu", people="detector", opener=opened)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for every request; a request that fails says why, and the others are unharmed."""
        return [self._response(request) for request in requests]

    def finalize(self) -> None:
        """Free the body."""
        self._model.close()

    def _response(self, request: Any) -> Any:
        triton = self._triton
        try:
            given = self._given(request)
            inputs = read_inputs(given, self._decoded, MAX_PIXELS, MAX_PEOPLE)
            if inputs.boxes_px is None:
                finder = self._model.people_source(max_people=MAX_PEOPLE)
                people = self._model(inputs.image_bgr, finder=finder, file=inputs.data)
            else:
                people = self._model(inputs.image_bgr, boxes=inputs.boxes_px, file=inputs.data)
        except (Refused, JotrDeployError) as error:
            return triton.InferenceResponse(error=triton.TritonError(f"{error.cause}; {error.remedy}"))
        except Exception as error:
            why = f"the pipeline failed: {type(error).__name__}: {error}"
            return triton.InferenceResponse(error=triton.TritonError(why))
        results = outputs(people, self._model.faces)
        wanted = request.requested_output_names()
        names = [each["name"] for each in OUTPUTS if each["name"] in wanted]
        return triton.InferenceResponse([triton.Tensor(name, np.ascontiguousarray(results[name])) for name in names])

    def _given(self, request: Any) -> dict[str, Array]:
        found = {each["name"]: self._triton.get_input_tensor_by_name(request, each["name"]) for each in INPUTS}
        return {name: tensor.as_numpy() for name, tensor in found.items() if tensor is not None}

    @staticmethod
    def _decoded(data: bytes) -> Array:
        check_picture(data, MAX_PIXELS)
        return decode_image(data, "the picture", upright=True)
