"""The models of the Open Inference Protocol: the whole pipeline, called `people`, and every network by its role."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from jotr_deploy.errors import SessionError, first_line
from jotr_deploy.serving.batched_session import SIZES
from jotr_deploy.serving.inference_protocol import InferRequest, datatype_of, read_request, response
from jotr_deploy.serving.pipeline_tensors import INPUTS, OUTPUTS, PEOPLE, VERSION, outputs, read_inputs
from jotr_deploy.serving.refusals import Refused
from jotr_deploy.serving.request_context import ClientLeft, DeadlineExceeded, RequestContext
from jotr_deploy.serving.served_model import ServedModel, checked_feeds, wire_shape
from jotr_deploy.support.aliases import Array


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
        about = {"name": model, "versions": [VERSION], "platform": "jotr-deploy"}
        if model == PEOPLE:
            return {**about, "inputs": INPUTS, "outputs": OUTPUTS}
        network = self._served.served[model]
        inputs, outputs = (
            [
                {"name": name, "datatype": datatype_of(spec.dtype), "shape": wire_shape(spec)}
                for name, spec in specs.items()
            ]
            for specs in (network.inputs, network.outputs)
        )
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
        served = self._served
        given = dict(request.inputs)
        if list(given) == [""]:  # a body without JSON
            given = {"image": given[""]}
        limits = served.options.max_pixels, served.options.max_people
        found = read_inputs(given, lambda data: served.decoded(data, context), *limits)
        if found.boxes_px is not None:
            people = served.people_in(found.image_bgr, found.data, found.boxes_px)
        else:
            people, _ = served.people(found.image_bgr, found.data, None)
        return outputs(people, served.model.faces)

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
