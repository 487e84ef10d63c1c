"""Requests of a good client with a few changes: of bytes, of values in their JSON, of headers and of the path."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

Request = tuple[str, dict[str, str], bytes]
LENGTH = "Inference-Header-Content-Length"
ODD: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 0.5, 1e300, "", "x", "\ud800", "BYTES", "FP32", "INT64", [], [[]], {},
    [None], [-1], [0], [2**40], ["a"], {"binary_data_size": 4}, {"timeout": 1},
]  # fmt: skip


def good_requests(picture: bytes) -> list[tuple[str, dict[str, Any], bytes]]:
    """Path, JSON and binary tail of requests for every model; the sizes of networks are those of the starter."""
    small = np.zeros((12, 16, 3), np.uint8)
    element = len(picture).to_bytes(4, "little") + picture

    def tensor(name: str, datatype: str, shape: list[int], **others: Any) -> dict[str, Any]:
        return {"name": name, "datatype": datatype, "shape": shape, **others}

    def size(count: int) -> dict[str, Any]:
        return {"parameters": {"binary_data_size": count}}

    crop, joints, mask = (np.zeros((1, *shape), np.float32) for shape in ((3, 128, 128), (30, 2), (30,)))
    ask = {"parameters": {"binary_data_output": True}}
    return [
        ("people", {"inputs": [tensor("image", "BYTES", [1], **size(len(element)))], "id": "1", **ask}, element),
        ("people", {"inputs": [tensor("image_bgr", "UINT8", [12, 16, 3], data=small.tolist())],
                    "outputs": [{"name": "betas"}, {"name": "joints_m", "parameters": {"binary_data": True}}]}, b""),
        ("people", {"inputs": [tensor("image_bgr", "UINT8", [12, 16, 3], data=small.ravel().tolist()),
                               tensor("boxes", "FP32", [1, 4], data=[1, 1, 9, 9])]}, b""),
        ("mesh", {"inputs": [tensor("image", "FP32", [1, 3, 128, 128], **size(crop.nbytes)),
                             tensor("joints", "FP32", [1, 30, 2], **size(joints.nbytes)),
                             tensor("joints_mask", "FP32", [1, 30], **size(mask.nbytes))], **ask},
         crop.tobytes() + joints.tobytes() + mask.tobytes()),
    ]  # fmt: skip


def mutated_requests(rng: np.random.Generator, picture: bytes, count: int) -> Iterator[Request]:
    """Path, headers and body of requests with one to three changes each."""
    good = good_requests(picture)
    for _ in range(count):
        model, head, tail = good[rng.integers(len(good))]
        head = json.loads(json.dumps(head))
        path, direct = f"/v2/models/{model}/infer", rng.random() < 0.1
        for _ in range(rng.integers(1, 4)):
            _change(rng, head)
        body = json.dumps(head).encode()
        headers = {LENGTH: str(len(body))} if tail or rng.random() < 0.3 else {}
        whole = picture if direct else body + tail
        if direct:
            path, headers = "/v1/people", {"Accept": ("application/json", "image/jpeg", "text/html")[rng.integers(3)]}
        if rng.random() < 0.5:
            whole = _damaged(rng, whole)
        if headers.get(LENGTH) and rng.random() < 0.2:
            headers[LENGTH] = ("0", "-1", "999999999999", "x", str(len(whole)))[rng.integers(5)]
        yield path, headers, whole


def _change(rng: np.random.Generator, content: Any) -> None:
    """Put an odd value somewhere into nested JSON, or take one out."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        inner = content[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.8:
            content = inner
        elif rng.random() < 0.15 and isinstance(content, dict):
            del content[key]
            return
        else:
            content[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
            return


def _damaged(rng: np.random.Generator, data: bytes) -> bytes:
    """Bytes changed, cut out or doubled."""
    changed = bytearray(data)
    at, end = np.sort(rng.integers(0, len(changed) + 1, 2))
    end = min(end, at + int(rng.integers(1, 64)))
    changed[at:end] = (rng.bytes(end - at), b"", bytes(changed[at:end]) * 2)[rng.integers(3)]
    return bytes(changed)
