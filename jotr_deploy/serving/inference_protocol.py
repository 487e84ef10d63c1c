"""The Open Inference Protocol, version 2, over HTTP: tensors in JSON or, as its binary extension, behind it.

A request is a JSON object with `inputs`, and optionally `id`, `outputs` and `parameters`. An input has `name`,
`datatype`, `shape` and either `data`, or `parameters.binary_data_size` bytes after the JSON, whose length is then in
the header `Inference-Header-Content-Length`; with 0 there, the whole body is the only input. Numbers are little-endian,
elements of type BYTES carry their length in 4 bytes. Everything is checked: sizes must agree with shapes and add up to
the body.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jotr_deploy.serving.refusals import Refused
from jotr_deploy.support.aliases import Array

HEADER_LENGTH = "Inference-Header-Content-Length"
BINARY = "binary_tensor_data"
"""Name of the extension."""
MOST_DIMENSIONS, MOST_TENSORS, MOST_ELEMENTS = 8, 64, 1 << 26
DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"{word}{bits}": np.dtype(f"<{letter}{bits // 8}")
       for word, letter in (("UINT", "u"), ("INT", "i")) for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}  # fmt: skip
BYTES = "BYTES"
_KINDS = {"b": "b", "u": "ui", "i": "ui", "f": "uif"}
_NOT_SUPPORTED = ("shared_memory_region", "classification", "sequence_id")


@dataclass(frozen=True)
class Output:
    """Output that a client asks for."""

    name: str
    binary: bool


@dataclass(frozen=True)
class InferRequest:
    """A checked request. Inputs are arrays; one of type BYTES is an object array of `bytes`."""

    id: str
    inputs: Mapping[str, Array]
    outputs: tuple[Output, ...] | None  # None: all of them
    binary: bool  # form of the outputs if none is named
    timeout_s: float | None


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a NumPy type."""
    return next(name for name, known in DATATYPES.items() if known == dtype.newbyteorder("<"))


def read_request(body: bytes, header_length: str | None) -> InferRequest:
    """Read a request.

    Args:
        body: everything that was sent.
        header_length: value of the header `HEADER_LENGTH`, if it was sent.

    Raises:
        Refused: with status 400, and what is wrong.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    if length == 0 and header_length is not None:
        image = np.array([None], object)
        image[0] = body
        return InferRequest("", {"": image}, None, True, None)
    content = _json(body[:length])
    parameters = _parameters(content, "the request")
    raw = _Raw(body, length)
    inputs: dict[str, Array] = {}
    for tensor in _tensors(content, "inputs"):
        name = _name(tensor, inputs)
        inputs[name] = _input(name, tensor, raw)
    if not inputs:
        raise _wrong("the request has no inputs")
    raw.require_used()
    binary = _flag(parameters, "binary_data_output", False)
    outputs: tuple[Output, ...] | None = None
    if content.get("outputs") not in (None, []):
        outputs, names = (), dict[str, Any]()
        for tensor in _tensors(content, "outputs"):
            name = _name(tensor, names)
            names[name] = None
            outputs = (*outputs, Output(name, _flag(_parameters(tensor, name), "binary_data", binary)))
    return InferRequest(_text(content.get("id", ""), "id"), inputs, outputs, binary, _timeout_s(parameters))


def response(
    model: str, request: InferRequest, results: Mapping[str, Array], parameters: Mapping[str, Any] | None = None
) -> tuple[bytes, dict[str, str]]:
    """The body of an answer, and its headers.

    Raises:
        Refused: an output that the model does not have, or a value that JSON has no number for.
    """
    wanted = request.outputs
    if wanted is None:
        wanted = tuple(Output(name, request.binary) for name in results)
    described, tail = [], []
    for output in wanted:
        if output.name not in results:
            raise _wrong(f"the model has no output {output.name!r:.80}", f"ask for some of {', '.join(results)}")
        array = results[output.name]
        tensor: dict[str, Any] = {"name": output.name, "datatype": _datatype(array), "shape": list(array.shape)}
        if output.binary:
            data = _packed(array)
            tensor["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            tensor["data"] = _listed(output.name, array)
        described.append(tensor)
    head: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": described}
    if request.id:
        head["id"] = request.id
    if parameters:
        head["parameters"] = dict(parameters)
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    if not tail:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join([text, *tail]), headers


class _Raw:
    """The bytes behind the JSON, taken in order."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body, self._at = body, start

    def take(self, name: str, count: int) -> bytes:
        if count > len(self._body) - self._at:
            raise _wrong(f"input {name!r}: binary_data_size is {count}, but {len(self._body) - self._at} bytes follow")
        self._at += count
        return self._body[self._at - count : self._at]

    def require_used(self) -> None:
        if self._at != len(self._body):
            raise _wrong(f"{len(self._body) - self._at} bytes follow that belong to no input")


def _wrong(cause: str, remedy: str = "see the Open Inference Protocol, version 2, and docs/serving.md") -> Refused:
    return Refused(400, cause, remedy)


def _length(text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= most):
        raise _wrong(f"{HEADER_LENGTH} is not a number of bytes of the body, which has {most}")
    return int(text)


def _json(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # not text, too deep, or a number with too many digits
        raise _wrong(f"the request is not JSON ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise _wrong("the request is not a JSON object")
    return content


def _tensors(content: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    tensors = content.get(key)
    if not isinstance(tensors, list) or not all(isinstance(each, dict) for each in tensors):
        raise _wrong(f"'{key}' is not a list of objects")
    if len(tensors) > MOST_TENSORS:
        raise _wrong(f"'{key}' has {len(tensors)} entries; the limit is {MOST_TENSORS}")
    return tensors


def _parameters(content: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = content.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise _wrong(f"the parameters of {where!r:.80} are not an object")
    for name in _NOT_SUPPORTED:
        if parameters.get(name):
            raise _wrong(f"the parameter {name} is not supported", "leave it out")
    return parameters


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or len(value) > 256:
        raise _wrong(f"'{what}' is not a text of at most 256 characters")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair
        raise _wrong(f"'{what}' is not valid text") from None
    return value


def _name(tensor: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    name = _text(tensor.get("name"), "name")
    if not name or name in known:
        raise _wrong(f"the name {name!r:.80} is empty, or given twice")
    return name


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise _wrong(f"the parameter {name} is neither true nor false")
    return value


def _timeout_s(parameters: Mapping[str, Any]) -> float | None:
    microseconds = parameters.get("timeout")
    if microseconds is None:
        return None
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or not 0 <= microseconds < 1 << 53:
        raise _wrong("the parameter timeout is not a number of microseconds")
    return microseconds / 1e6 if microseconds else None


def _input(name: str, tensor: Mapping[str, Any], raw: _Raw) -> Array:
    datatype, shape = tensor.get("datatype"), _shape(name, tensor.get("shape"))
    if datatype != BYTES and (not isinstance(datatype, str) or datatype not in DATATYPES):
        raise _wrong(f"input {name!r:.80}: the datatype is not known", f"give {', '.join([*DATATYPES, BYTES])}")
    count, size = math.prod(shape), _parameters(tensor, name).get("binary_data_size")
    if count > MOST_ELEMENTS:
        raise _wrong(f"input {name!r:.80}: {count} elements; the limit is {MOST_ELEMENTS}")
    if size is None:
        return _from_json(name, datatype, shape, tensor.get("data"))
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise _wrong(f"input {name!r:.80}: binary_data_size is not a number of bytes")
    if "data" in tensor:
        raise _wrong(f"input {name!r:.80}: both data and binary_data_size are given")
    data = raw.take(name, size)
    if datatype == BYTES:
        return _unpacked(name, data, shape)
    dtype = DATATYPES[datatype]
    if size != count * dtype.itemsize:
        raise _wrong(f"input {name!r:.80}: {datatype} {list(shape)} has {count * dtype.itemsize} bytes, not {size}")
    if datatype == "BOOL":
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    return np.frombuffer(data, dtype).reshape(shape)


def _shape(name: str, value: Any) -> tuple[int, ...]:
    def a_size(number: Any) -> bool:
        return isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MOST_ELEMENTS

    if not isinstance(value, list) or len(value) > MOST_DIMENSIONS or not all(map(a_size, value)):
        raise _wrong(f"input {name!r:.80}: the shape is not a list of at most {MOST_DIMENSIONS} sizes")
    return tuple(value)


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Array:
    """A tensor from a list, flat or nested as its shape says."""
    count = math.prod(shape)
    if not isinstance(data, list):
        raise _wrong(f"input {name!r:.80}: has neither data nor binary_data_size")
    if datatype == BYTES:
        if len(data) != count or not all(isinstance(each, str) for each in data):
            raise _wrong(f"input {name!r:.80}: data is not a list of {count} texts", "send pictures as binary data")
        texts = np.empty(count, object)
        texts[:] = [each.encode(errors="surrogatepass") for each in data]
        return texts.reshape(shape)
    try:
        given = np.asarray(data)
    except (ValueError, OverflowError):  # rows of different lengths
        raise _wrong(f"input {name!r:.80}: data is not an array of numbers") from None
    dtype = DATATYPES[datatype]
    empty = given.size == 0
    if given.size != count or given.shape not in ((count,), shape):
        raise _wrong(f"input {name!r:.80}: data has the shape {list(given.shape)}, not {list(shape)} or [{count}]")
    if not empty and given.dtype.kind not in _KINDS[dtype.kind]:
        raise _wrong(f"input {name!r:.80}: data is not of the datatype {datatype}")
    if not empty and dtype.kind in "ui" and not _within(given, dtype):
        raise _wrong(f"input {name!r:.80}: a number does not fit into {datatype}")
    with np.errstate(over="ignore"):
        return given.astype(dtype).reshape(shape)


def _within(given: Array, dtype: np.dtype[Any]) -> bool:
    limits = np.iinfo(dtype)
    return int(given.min()) >= limits.min and int(given.max()) <= limits.max


def _unpacked(name: str, data: bytes, shape: tuple[int, ...]) -> Array:
    """Elements of type BYTES, each behind its length."""
    elements, at = list[bytes](), 0
    while at < len(data) and len(elements) <= math.prod(shape):
        size = int.from_bytes(data[at : at + 4], "little")
        if len(data) - at < 4 + size:
            raise _wrong(f"input {name!r:.80}: an element is longer than the data")
        elements.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    if len(elements) != math.prod(shape) or at != len(data):
        raise _wrong(f"input {name!r:.80}: the data has not {math.prod(shape)} elements")
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def _datatype(array: Array) -> str:
    return BYTES if array.dtype == object else datatype_of(array.dtype)


def _packed(array: Array) -> bytes:
    if array.dtype == object:
        return b"".join(len(each).to_bytes(4, "little") + each for each in array.reshape(-1))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _listed(name: str, array: Array) -> list[Any]:
    """The elements for JSON, flat; numbers of 32 bits with as many digits as they have."""
    flat = array.reshape(-1)
    if array.dtype == object:
        return [each.decode(errors="replace") for each in flat]
    if array.dtype.kind != "f":
        return list(flat.tolist())
    if not np.isfinite(flat).all():
        raise Refused(422, f"output {name!r}: some values are not finite, which JSON cannot express",
                      "ask for it with binary_data")  # fmt: skip
    return short_numbers(flat)


def short_numbers(values: Array) -> list[float]:
    """Python numbers with the fewest digits that give the same value in the type of the array."""
    if values.dtype == np.float64:
        return list(values.tolist())
    return [float(f"{value:.9g}") for value in values.tolist()]
