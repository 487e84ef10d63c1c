"""The models of the Open Inference Protocol: the whole pipeline, called `people`, and every network by its role."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from jotr_deploy.errors import SessionError, SourceError, first_line
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.finding.given_people import checked_image
from jotr_deploy.serving.batched_session import SIZES
from jotr_deploy.serving.inference_protocol import BYTES, InferRequest, datatype_of, read_request, response
from jotr_deploy.serving.refusals import Refused
from jotr_deploy.serving.request_context import ClientLeft, DeadlineExceeded, RequestContext
from jotr_deploy.serving.served_model import ServedModel, checked_feeds, wire_shape
from jotr_deploy.support.aliases import Array

PEOPLE = "people"
VERSION = "1"
PEOPLE_INPUTS: list[dict[str, Any]] = [
    {"name": "image", "datatype": BYTES, "shape": [1]},
    {"name": "image_bgr", "datatype": "UINT8", "shape": [-1, -1, 3]},
    {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]},
]
"""Inputs of the whole pipeline: one of the first two, and boxes if they are known."""


class InferenceModels:
    """Metadata and inference of the models of a server."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served

    @property
    def names(self) -> list[str]:
        """All models."""
        return [PEOPLE, *self._served.served]

    def known(self, model: str, version: str | None) -> str:
        """The name of a model that exists.

        Raises:
            Refused: 404.
        """
        if model not in self.names:
            raise Refused(404, f"there is no model {model!r:.80}", f"there are {', '.join(self.names)}")
        if version not in (None, VERSION):
            raise Refused(404, f"the model {model} has no such version", f"its version is {VERSION}")
        return model

    def metadata(self, model: str) -> dict[str, Any]:
        """Tensors of a model."""
        if model == PEOPLE:
            inputs, outputs = PEOPLE_INPUTS, people_outputs()
        else:
            network = self._served.served[model]
            inputs, outputs = (
                [
                    {"name": name, "datatype": datatype_of(spec.dtype), "shape": wire_shape(spec)}
                    for name, spec in specs.items()
                ]
                for specs in (network.inputs, network.outputs)
            )
        about = {"name": model, "versions": [VERSION], "platform": "jotr-deploy"}
        return {**about, "inputs": inputs, "outputs": outputs}

    def infer(
        self, model: str, body: bytes, header_length: str | None, context: RequestContext
    ) -> tuple[bytes, dict[str, str]]:
        """The answer to a request, and its headers.

        Raises:
            Refused: the request is wrong.
            SourceError, KeypointFileError: its picture or boxes are.
            ClientLeft, DeadlineExceeded
        """
        request = read_request(body, header_length)
        if request.timeout_s is not None:
            context.shorten(request.timeout_s)
        if model == PEOPLE:
            labels = {"labels": " · ".join(self._served.model.labels)}
            return response(model, request, self._people(request, context), labels)
        return response(model, request, self._network(model, request))

    def _people(self, request: InferRequest, context: RequestContext) -> Mapping[str, Array]:
        given = dict(request.inputs)
        if list(given) == [""]:  # a body without JSON
            given = {"image": given[""]}
        if given.keys() - {"image", "image_bgr", "boxes"} or ("image" in given) == ("image_bgr" in given):
            raise Refused(
                400,
                f"the inputs are {', '.join(sorted(map(repr, given)))[:200]}",
                "give one of image (BYTES [1]) and image_bgr (UINT8 [H,W,3]), and boxes (FP32 [N,4]) if they are known",
            )
        data = _file_of(given["image"]) if "image" in given else None
        image_bgr = self._pixels(given["image_bgr"]) if data is None else self._served.decoded(data, context)
        if "boxes" in given:
            people = self._served.people_in(image_bgr, data, self._boxes(given["boxes"]))
        else:
            people, _ = self._served.people(image_bgr, data, None)
        return {**{name: getattr(people, name) for name in LAYOUT}, "faces": self._served.model.faces}

    def _pixels(self, image_bgr: Array) -> Array:
        try:
            image_bgr = checked_image(image_bgr)
        except SourceError as error:
            raise Refused(400, error.cause, "give image_bgr as UINT8 [H,W,3] in BGR order") from None
        if image_bgr.shape[0] * image_bgr.shape[1] > self._served.options.max_pixels:
            raise Refused(413, "the picture has too many pixels", "make it smaller")
        return image_bgr

    def _boxes(self, boxes_px: Array) -> Array:
        most = self._served.options.max_people
        if boxes_px.dtype.kind != "f" or boxes_px.ndim != 2 or len(boxes_px) > most:
            cause = f"boxes are {boxes_px.dtype} {list(boxes_px.shape)}"
            raise Refused(400, cause, f"give FP32 [N,4], N up to {most}")
        return boxes_px

    def _network(self, model: str, request: InferRequest) -> Mapping[str, Array]:
        network = self._served.served[model]
        given = dict(request.inputs)
        if list(given) == [""]:
            raise Refused(400, "a body without JSON is only a picture", "send it to people, or describe the tensors")
        try:
            feeds = checked_feeds(network, given, SIZES[-1])
        except ValueError as error:
            raise Refused(400, str(error), "see the metadata of the model") from None
        try:
            return network.session(feeds)
        except (SessionError, DeadlineExceeded, ClientLeft):
            raise
        except Exception as error:  # engines raise anything on values that they cannot use, such as an index
            logging.getLogger("jotr_deploy.serve").warning("%s: a request's tensors failed", model, exc_info=error)
            cause = f"the network cannot run on these tensors ({first_line(error)[:200]})"
            raise Refused(422, cause, "check their values") from None


def people_outputs() -> list[dict[str, Any]]:
    """Outputs of the whole pipeline: the fields of `People`, N rows each, and the triangles of the meshes."""
    rows = [
        {"name": name, "datatype": datatype_of(np.dtype(dtype)), "shape": [-1, *shape]}
        for name, (shape, dtype) in LAYOUT.items()
    ]
    return [*rows, {"name": "faces", "datatype": "INT32", "shape": [-1, 3]}]


def _file_of(image: Array) -> bytes:
    if image.dtype != object or image.shape not in ((1,), (1, 1)):
        raise Refused(400, f"image is {list(image.shape)}", "give the file of one picture: BYTES [1], as binary data")
    return bytes(image.reshape(-1)[0])
