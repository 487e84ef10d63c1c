"""Crops cut on the GPU: a frame is uploaded once, and its crops stay there for the network.

Cutting is an ONNX network of its own. Sampling positions are computed on the host, in float64 and on OpenCV's grid of
1/32 px: every row and column of a crop lies between two of the frame, at a multiple of 1/32. The network gathers and
adds. Its sums are exact in float32, so its crops match `make_crops`: bit for bit in ONNX Runtime on the CPU. A GPU may
round the division by 255 differently, by less than 1e-6, or 0.0003 of 255 grey levels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import cv2
import numpy as np

from jotr_deploy.errors import JotrDeployError, SessionError, first_line
from jotr_deploy.geometry.crop import joints_in_grid
from jotr_deploy.runtime.crops import Cropper, Crops, Region, covered_region, make_crops, require_croppable
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.sessions import Session, cuda
from jotr_deploy.runtime.sessions.capture_lock import CAPTURES
from jotr_deploy.runtime.sessions.cuda_session import CudaSession
from jotr_deploy.runtime.sessions.device_array import DeviceArray
from jotr_deploy.runtime.sessions.onnxruntime import CPU, CUDA, load, no_cuda, on_cuda, onnxruntime
from jotr_deploy.runtime.sessions.onnxruntime_cuda import load_libraries
from jotr_deploy.support.aliases import Array

PEOPLE_AT_ONCE = 8
"""People in one run of the graph; at 256 px its intermediate values take about 12 MB per person."""
_FRACTION_BITS = 5  # OpenCV's INTER_BITS: pixel fractions are multiples of 1/32
_FRACTIONS = 1 << _FRACTION_BITS
_POSITION_BITS = 10  # OpenCV's AB_BITS: positions are first rounded to 1/1024 px


# ── the graph and its sampling positions ─────────────────────────────────────────────────────────────────────────


def crop_graph() -> bytes:
    """The network, an ONNX model of opset 17, for any number and size of frames, people and crops.

    Inputs: `frame` uint8 [H,W,3] BGR, and the arrays of `sampling` by name, each [2,N,S]: for every row and column of a
    crop, its two neighbours in the frame. `row_starts` int32, index of a row's first pixel in the whole frame;
    `columns` int32; `row_weights`, `column_weights` float32. Output: `image` float32 [N,3,S,S], RGB in 0..1.
    """
    from onnx import TensorProto, helper, numpy_helper

    tables = ("row_starts", "columns", "row_weights", "column_weights")
    constants = {
        "pixels": np.array([-1, 3], np.int64),
        "around_rows": np.array([1, 4], np.int64),  # (2, N, S) -> (2, 1, N, S, 1)
        "around_columns": np.array([0, 3], np.int64),  # (2, N, S) -> (1, 2, N, 1, S)
        "last": np.array([-1], np.int64),
        "corners": np.array([0, 1], np.int64),
        "rgb_of_bgr": np.array([2, 1, 0], np.int64),
        "white": np.array(255, np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["frame", "pixels"], ["pixels_bgr"]),
        *(
            helper.make_node("Unsqueeze", [name, "around_rows" if "row" in name else "around_columns"], [f"{name}_5d"])
            for name in tables
        ),
        helper.make_node("Add", ["row_starts_5d", "columns_5d"], ["index"]),  # (2, 2, N, S, S)
        helper.make_node("Gather", ["pixels_bgr", "index"], ["corners_uint8"], axis=0),  # (2, 2, N, S, S, 3)
        helper.make_node("Cast", ["corners_uint8"], ["corners_bgr"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["row_weights_5d", "column_weights_5d"], ["weights_5d"]),
        helper.make_node("Unsqueeze", ["weights_5d", "last"], ["weights"]),
        helper.make_node("Mul", ["corners_bgr", "weights"], ["weighted_bgr"]),
        helper.make_node("ReduceSum", ["weighted_bgr", "corners"], ["crops_bgr"], keepdims=0),  # (N, S, S, 3)
        helper.make_node("Gather", ["crops_bgr", "rgb_of_bgr"], ["crops_rgb"], axis=3),
        helper.make_node("Transpose", ["crops_rgb"], ["planes_rgb"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["planes_rgb", "white"], ["image"]),
    ]
    kinds = dict(zip(tables, [TensorProto.INT32] * 2 + [TensorProto.FLOAT] * 2, strict=True))
    graph = helper.make_graph(
        nodes,
        "crops",
        [
            helper.make_tensor_value_info("frame", TensorProto.UINT8, ["height", "width", 3]),
            *(helper.make_tensor_value_info(name, kind, [2, "people", "side"]) for name, kind in kinds.items()),
        ],
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["people", 3, "side", "side"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    serialized: bytes = model.SerializeToString()
    return serialized


def sampling(boxes_px: Array, image_size_px: tuple[int, int], crop_side: int) -> dict[str, Array]:
    """The other inputs of `crop_graph`, for N square boxes in an image of (width, height)."""
    count = len(boxes_px)
    positions = np.zeros((2, 1, count, crop_side), np.int64)  # first axis: x, y; then the neighbours, people, pixels
    start, step, length = np.zeros((3, 2, 1, count, 1), np.int64)  # of the pixels a box covers; zero outside the image
    for person, box in enumerate(boxes_px):
        region = covered_region(box, image_size_px, crop_side)
        if region is not None:
            positions[:, 0, person] = _positions(region, crop_side)
            for axis, pixels in enumerate((region.x_px, region.y_px)):
                start[axis, 0, person] = pixels.start
                step[axis, 0, person] = pixels.step
                length[axis, 0, person] = len(pixels)
    number = (positions >> _FRACTION_BITS) + np.array([[[0]], [[1]]])
    share = (positions % _FRACTIONS / _FRACTIONS).astype(np.float32)  # weight of the second neighbour
    inside = (number >= 0) & (number < length)
    columns, rows = (start + step * number.clip(0, length - 1)).astype(np.int32)
    column_weights, row_weights = inside * np.concatenate([1 - share, share], 1)
    return {
        "row_starts": rows * np.int32(image_size_px[0]),
        "columns": columns,
        "row_weights": row_weights,
        "column_weights": column_weights,
    }


def _positions(region: Region, crop_side: int) -> tuple[Array, Array]:
    """Columns and rows of a region that OpenCV samples for a crop, in 1/32 px, with OpenCV's rounding."""
    region_from_crop = cv2.invertAffineTransform(region.crop_from_region)
    (x_scale, _, x_shift), (_, y_scale, y_shift) = region_from_crop
    one, crop_px = 1 << _POSITION_BITS, np.arange(crop_side)
    columns = np.rint(x_scale * crop_px * one) + np.rint(x_shift * one)
    rows = np.rint((y_scale * crop_px + y_shift) * one)
    dropped = _POSITION_BITS - _FRACTION_BITS
    half = 1 << (dropped - 1)
    return (columns.astype(np.int64) + half) >> dropped, (rows.astype(np.int64) + half) >> dropped


# ── on the GPU ───────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def open_cropper(session: Session) -> Iterator[Cropper]:
    """The cropper of a mesh network: on its GPU if it reads arrays there, else `make_crops`.

    A TensorRT engine without ONNX Runtime for CUDA beside it also gets crops from the CPU; the log reports it.
    """
    with ExitStack() as stack:
        cropper: Cropper = make_crops
        if isinstance(session, CudaSession):
            try:
                cropper = stack.enter_context(GpuCropper())
            except JotrDeployError as error:
                logging.getLogger("jotr_deploy").info("crops are cut on the CPU: %s", error.cause)
        yield cropper


class GpuCropper:
    """Cuts crops on the current GPU with ONNX Runtime.

    The result lies in its own memory, valid until the next call. The GPU has finished when a call returns.
    """

    def __init__(self) -> None:
        """Load the graph.

        Raises:
            SessionError: no ONNX Runtime with CUDA, no GPU, or out of memory.
            MissingDependency: no ONNX Runtime or no cuda-bindings.
        """
        if CUDA not in onnxruntime().get_available_providers():
            raise no_cuda()
        cuda.require_primary_context()
        with CAPTURES.allocating(), ExitStack() as stack:
            self._stream = cuda.Stream()
            stack.callback(self._stream.release)
            stack.callback(self._forget)  # before its stream is released
            self._session: Any = self._load()
            self._staging, self._inputs = _Rooms(cuda.Memory.pinned), _Rooms(cuda.Memory.on_device)
            self._image = _Rooms(cuda.Memory.on_device)
            for rooms in (self._staging, self._inputs, self._image):
                stack.callback(rooms.release)
            self._resources = stack.pop_all()

    def __call__(self, image_bgr: Array, people: Detections, crop_side: int) -> Crops:
        """Cut every person out of an image; see `make_crops`.

        Raises:
            KeypointFileError: a box without area, or with a value that is not finite.
            SessionError: the GPU is out of memory, or ONNX Runtime fails.
        """
        require_croppable(image_bgr, people.boxes_px)
        if not len(people):
            return make_crops(image_bgr, people, crop_side)
        height, width = image_bgr.shape[:2]
        shape = (len(people), 3, crop_side, crop_side)
        row_bytes = 3 * crop_side * crop_side * np.dtype(np.float32).itemsize
        memory = self._image.at("image", len(people) * row_bytes)
        image = DeviceArray(memory.pointer, shape, np.dtype(np.float32), memory, self._stream.device)
        memory.viewers.add(image)
        frame = self._upload("frame", image_bgr)
        for start in range(0, len(people), PEOPLE_AT_ONCE):
            rows = slice(start, start + PEOPLE_AT_ONCE)
            tables = sampling(people.boxes_px[rows], (width, height), crop_side)
            uploaded = {name: self._upload(name, table) for name, table in tables.items()}
            self._run({"frame": frame, **uploaded}, image[rows])
        joints, mask = joints_in_grid(people.keypoints_px, people.boxes_px, crop_side)
        return Crops(image, joints, mask, people.boxes_px)

    def __enter__(self) -> GpuCropper:
        return self

    def __exit__(self, *error: object) -> None:
        with CAPTURES.allocating():
            self._resources.close()

    def _load(self) -> Any:
        load_libraries()
        options = {"device_id": self._stream.device, "user_compute_stream": self._stream.pointer}
        session = load(crop_graph(), [on_cuda(tf32=False, **options, enable_cuda_graph=0), CPU])
        if session.get_providers()[0] != CUDA:
            raise no_cuda()
        return session

    def _forget(self) -> None:
        self._session = None

    def _upload(self, name: str, values: Array) -> DeviceArray:
        """Queue a copy to the GPU; the staging memory can be reused after `_run`."""
        pinned, memory = self._staging.at(name, values.nbytes), self._inputs.at(name, values.nbytes)
        pinned.as_array(values.shape, values.dtype)[...] = values
        self._stream.to_device(memory.pointer, pinned.pointer, values.nbytes)
        return DeviceArray(memory.pointer, values.shape, values.dtype, memory, self._stream.device)

    def _run(self, feeds: Mapping[str, DeviceArray], image: DeviceArray) -> None:
        """Run the graph and wait for it."""
        binding = self._session.io_binding()
        for name, feed in feeds.items():
            binding.bind_input(name, "cuda", feed.device, feed.dtype.type, feed.shape, feed.pointer)
        binding.bind_output("image", "cuda", image.device, image.dtype.type, image.shape, image.pointer)
        try:
            with CAPTURES.allocating():
                self._session.run_with_iobinding(binding, None)
        except Exception as error:  # ONNX Runtime's own classes derive from Exception only
            raise SessionError(
                f"ONNX Runtime cannot cut crops on the GPU ({first_line(error)})",
                "report this with the versions of `doctor`; or use --device cpu",
            ) from None
        self._stream.synchronize()


class _Rooms:
    """Named blocks of memory, each as large as the most it has held so far, so addresses rarely change."""

    def __init__(self, make: Callable[[int], cuda.Memory]) -> None:
        self._make = make
        self._blocks: dict[str, cuda.Memory] = {}

    def at(self, name: str, nbytes: int) -> cuda.Memory:
        """The block of that name with room for `nbytes`; its content is lost when it has to grow."""
        block = self._blocks.get(name)
        if block is None or block.nbytes < nbytes:
            self._blocks[name] = self._make(nbytes)
            if block is not None:
                block.release()
        return self._blocks[name]

    def release(self) -> None:
        """Release all blocks."""
        for block in self._blocks.values():
            block.release()
