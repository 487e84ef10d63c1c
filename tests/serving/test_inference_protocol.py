"""Open Inference Protocol: what is read, what is written, and that nothing malformed gets past."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from jotr_deploy.serving.inference_protocol import DATATYPES, InferRequest, Output, read_request, response
from jotr_deploy.serving.refusals import Refused

TEXT = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}]}'


def body(*inputs: dict[str, Any], tail: bytes = b"", **others: Any) -> tuple[bytes, str | None]:
    head = json.dumps({"inputs": list(inputs), **others}).encode()
    return head + tail, str(len(head)) if tail else None


def tensor(datatype: str = "FP32", shape: Any = (2,), **others: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": list(shape) if isinstance(shape, tuple) else shape, **others}


def binary(size: Any, datatype: str = "FP32", shape: Any = (2,)) -> dict[str, Any]:
    return tensor(datatype, shape, parameters={"binary_data_size": size})


GOOD = {
    "flat": (body(tensor(data=[1, 2.5])), np.float32([1, 2.5])),
    "nested": (body(tensor("INT64", (2, 1), data=[[1], [-2]])), np.int64([[1], [-2]])),
    "flat of two axes": (body(tensor("UINT8", (2, 2), data=[1, 2, 3, 255])), np.uint8([[1, 2], [3, 255]])),
    "truths": (body(tensor("BOOL", (2,), data=[True, False])), np.array([True, False])),
    "nobody": (body(tensor("FP32", (0, 4), data=[])), np.zeros((0, 4), np.float32)),
    "whole numbers as floats": (body(tensor("FP16", data=[1, 2])), np.float16([1, 2])),
    "binary": (body(binary(8), tail=np.float32([3, 4]).tobytes()), np.float32([3, 4])),
    "binary of one byte": (body(binary(2, "BOOL"), tail=b"\1\0"), np.array([True, False])),
    "binary halves": (body(binary(4, "FP16"), tail=np.float16([3, 4]).tobytes()), np.float16([3, 4])),
    "elements": (body(binary(9, "BYTES", (1,)), tail=b"\5\0\0\0JFIF!"), np.array([b"JFIF!"], object)),
    "text": (body(tensor("BYTES", (1,), data=["hé"])), np.array(["hé".encode()], object)),
    "the whole body": ((b"\xff\xd8\xff", "0"), np.array([b"\xff\xd8\xff"], object)),
}


@pytest.mark.parametrize("name", GOOD)
def test_tensors_are_read(name: str) -> None:
    (content, length), expected = GOOD[name]
    (read,) = read_request(content, length).inputs.values()
    np.testing.assert_array_equal(read, expected)
    assert (read.dtype, read.shape) == (expected.dtype, expected.shape)


def test_what_is_asked_beside_the_tensors_is_read() -> None:
    outputs = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}]
    content, _ = body(tensor(data=[1, 2]), id="7", outputs=outputs, parameters={"timeout": 2_500_000, "priority": 1})
    request = read_request(content, None)
    assert (request.id, request.timeout_s, request.binary) == ("7", 2.5, False)
    assert request.outputs == (Output("a", False), Output("b", True))
    content, _ = body(tensor(data=[1, 2]), outputs=[{"name": "a"}], parameters={"binary_data_output": True})
    assert read_request(content, None).outputs == (Output("a", True),)
    assert read_request(TEXT, None).outputs is None


BAD = {
    "not JSON": (b"{", None, "not JSON"),
    "too deep": (b"[" * 100_000, None, "not JSON"),
    "half a letter": (b'{"id": "\xc3"}', None, "not JSON"),
    "a number of many digits": (b'{"inputs": ' + b"9" * 10_000 + b"}", None, "not JSON"),
    "a list": (b"[]", None, "not a JSON object"),
    "no inputs": (b"{}", None, "'inputs' is not a list"),
    "empty inputs": (b'{"inputs": []}', None, "no inputs"),
    "inputs of numbers": (b'{"inputs": [1]}', None, "'inputs' is not a list of objects"),
    "too many inputs": (*body(*[{}] * 65), "65 entries"),
    "a name twice": (*body(tensor(data=[1, 2]), tensor(data=[1, 2])), "given twice"),
    "no name": (*body({"datatype": "FP32", "shape": [1], "data": [1]}), "'name' is not a text"),
    "half a pair": (b'{"inputs": [{"name": "\\ud800"}]}', None, "not valid text"),
    "an unknown type": (*body(tensor("FP8", data=[1, 2])), "datatype is not known"),
    "a type that is a list": (*body({**tensor(data=[1]), "datatype": []}), "datatype is not known"),
    "a negative size": (*body(tensor(shape=(-1,), data=[1])), "shape is not a list"),
    "a size that is true": (*body(tensor(shape=[True], data=[1])), "shape is not a list"),
    "nine axes": (*body(tensor(shape=(1,) * 9, data=[1])), "at most 8 sizes"),
    "too many elements": (*body(tensor(shape=(1 << 20, 1 << 20), data=[1])), "elements; the limit"),
    "too few numbers": (*body(tensor(data=[1])), "data has the shape [1]"),
    "ragged": (*body(tensor(shape=(2, 2), data=[[1, 2], [3]])), "not an array of numbers"),
    "words": (*body(tensor(data=["1", "2"])), "not of the datatype FP32"),
    "objects": (*body(tensor(data=[{}, None])), "not of the datatype FP32"),
    "fractions": (*body(tensor("INT32", data=[1.5, 2])), "not of the datatype INT32"),
    "too large": (*body(tensor("UINT8", data=[1, 256])), "does not fit into UINT8"),
    "below zero": (*body(tensor("UINT64", data=[1, -1])), "does not fit into UINT64"),
    "huge": (*body(tensor("INT64", data=[1, 2**70])), "not of the datatype INT64"),
    "no data": (*body(tensor()), "neither data nor"),
    "both": (*body({**binary(8), "data": [1, 2]}, tail=b"01234567"), "both data and"),
    "bytes are missing": (*body(binary(8), tail=b"0123"), "but 4 bytes follow"),
    "bytes are left": (*body(binary(8), tail=b"012345678"), "1 bytes follow"),
    "bytes of another shape": (*body(binary(4), tail=b"0123"), "has 8 bytes, not 4"),
    "a negative number of bytes": (*body(binary(-4), tail=b"0123"), "not a number of bytes"),
    "a number of bytes in words": (*body(binary("8"), tail=b"01234567"), "not a number of bytes"),
    "an element that is too long": (*body(binary(5, "BYTES", (1,)), tail=b"\5\0\0\0a"), "longer than the data"),
    "an element too few": (*body(binary(5, "BYTES", (2,)), tail=b"\1\0\0\0a"), "has not 2 elements"),
    "an element too many": (*body(binary(10, "BYTES", (1,)), tail=b"\1\0\0\0a" * 2), "has not 1 elements"),
    "shared memory": (*body(tensor(parameters={"shared_memory_region": "r"})), "not supported"),
    "parameters in a list": (*body(tensor(data=[1, 2]), parameters=[]), "are not an object"),
    "a time below zero": (*body(tensor(data=[1, 2]), parameters={"timeout": -1}), "not a number of microseconds"),
    "a flag in words": (*body(tensor(data=[1, 2]), parameters={"binary_data_output": "yes"}), "neither true nor false"),
    "outputs in an object": (*body(tensor(data=[1, 2]), outputs={"a": 1}), "'outputs' is not a list"),
    "a length beyond the body": (TEXT, str(len(TEXT) + 1), "not a number of bytes of the body"),
    "a length below zero": (TEXT, "-1", "not a number of bytes of the body"),
    "a length in other digits": (TEXT, "²", "not a number of bytes of the body"),
    "a length that cuts the JSON": (TEXT, "20", "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_malformed_is_refused(name: str) -> None:
    content, length, cause = BAD[name]
    with pytest.raises(Refused) as refusal:
        read_request(content, length)
    assert refusal.value.status == 400
    assert cause in refusal.value.cause
    assert len(refusal.value.cause) < 300


def test_no_change_of_bytes_is_more_than_refused(rng: np.random.Generator) -> None:
    """Changed, cut, doubled and swapped bytes of good requests: read, or refused."""
    for _ in range(2000):
        (content, length), _ = list(GOOD.values())[rng.integers(len(GOOD))]
        changed = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at, end = np.sort(rng.integers(0, len(changed) + 1, 2))
            changed[at:end] = (
                [rng.bytes(end - at), b"", bytes(changed[at:end]) * 2, str(rng.integers(-9, 1 << 40)).encode()]
            )[rng.integers(4)]
        with suppress(Refused):  # anything else fails
            read_request(bytes(changed), length)


RESULTS = {
    "floats": np.float32([[0.1, -2], [3, 4e-9]]),
    "numbers": np.int64([1, -2]),
    "truths": np.array([True, False]),
    "nobody": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("in_binary", [False, True])
def test_answers_hold_the_same_values_in_either_form(in_binary: bool) -> None:
    content, headers = response("m", InferRequest("7", {}, None, in_binary, None), RESULTS, {"labels": "a"})
    length = int(headers.get("Inference-Header-Content-Length", len(content)))
    head, at = json.loads(content[:length]), length
    assert (head["model_name"], head["id"], head["parameters"]) == ("m", "7", {"labels": "a"})
    for tensor, (name, expected) in zip(head["outputs"], RESULTS.items(), strict=True):
        assert (tensor["name"], tensor["shape"]) == (name, list(expected.shape))
        dtype = DATATYPES[tensor["datatype"]]
        if in_binary:
            size = tensor["parameters"]["binary_data_size"]
            values, at = np.frombuffer(content[at : at + size], dtype), at + size
        else:
            values = np.array(tensor["data"], dtype)
        np.testing.assert_array_equal(values.reshape(expected.shape), expected)
        assert dtype == expected.dtype
    assert at == len(content) if in_binary else headers["Content-Type"] == "application/json"


def test_an_answer_has_what_was_asked_for_and_only_numbers() -> None:
    content, _ = response("m", InferRequest("", {}, (Output("numbers", False),), False, None), RESULTS)
    assert [each["name"] for each in json.loads(content)["outputs"]] == ["numbers"]
    for results, cause in (({}, "no output 'a'"), ({"a": np.float32([np.nan])}, "not finite")):
        with pytest.raises(Refused, match=cause):
            response("m", InferRequest("", {}, (Output("a", False),), False, None), results)
