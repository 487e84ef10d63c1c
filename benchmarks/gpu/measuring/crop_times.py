"""Crops of a frame cut on the GPU, against crops cut by OpenCV on the CPU and uploaded: time and equality.

Both begin with a frame in the host's memory and end with the crops in the GPU's, done; medians of calls taken in turns.
"cut" and "upload" are the two parts of the CPU's way; "tables" is what the host computes for the GPU's way, part of its
time. OpenCV uses all cores. Equality is over the package's picture and over noise, in grey levels of 255.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from jotr_deploy.profiling.environment import environment, load_average
from jotr_deploy.profiling.timed_picture import default_scene
from jotr_deploy.runtime.crop_graph import GpuCropper, sampling
from jotr_deploy.runtime.crops import make_crops
from jotr_deploy.runtime.detections import Detections
from jotr_deploy.runtime.sessions import cuda
from jotr_deploy.runtime.sessions.device_array import DeviceArray
from jotr_deploy.runtime.sources.images import read_image

SIZES_PX = ((1280, 720), (1920, 1080))
PEOPLE = (1, 4, 16)
CROP_SIDE = 256
WARM_UP, ROUNDS = 5, 100
LIMIT_GREY = 255e-6
"""What a division may round differently; everything else is exact."""


@dataclass(frozen=True)
class Row:
    """One size of frame with so many people; milliseconds are medians."""

    width_px: int
    height_px: int
    people: int
    cut_ms: float
    upload_ms: float
    cpu_ms: float  # cut, then uploaded
    tables_ms: float
    gpu_ms: float  # with the tables
    max_grey: float
    mean_grey: float


class Transfer:
    """Crops to the GPU as a session copies them, and back to compare them."""

    def __init__(self, stack: ExitStack) -> None:
        nbytes = max(PEOPLE) * 3 * CROP_SIDE * CROP_SIDE * 4
        self._stream, self._pinned = cuda.Stream(), cuda.Memory.pinned(nbytes)
        self._device = cuda.Memory.on_device(nbytes)
        for owned in (self._stream, self._pinned, self._device):
            stack.callback(owned.release)

    def up(self, values: np.ndarray) -> None:
        self._pinned.as_array(values.shape, values.dtype)[...] = values
        self._stream.to_device(self._device.pointer, self._pinned.pointer, values.nbytes)
        self._stream.synchronize()

    def down(self, array: DeviceArray) -> np.ndarray:
        self._stream.to_host(self._pinned.pointer, array.pointer, array.nbytes)
        self._stream.synchronize()
        return self._pinned.as_array(array.shape, array.dtype).copy()


def people_of(count: int, size_px: tuple[int, int], rng: np.random.Generator) -> Detections:
    """Square boxes from a quarter of the height to all of it, some of them partly outside."""
    side = rng.uniform(0.25, 1, (count, 1)) * size_px[1]
    low = rng.uniform(0, size_px, (count, 2)) - side / 2
    return Detections.from_boxes(np.concatenate([low, low + side], 1).astype(np.float32))


def frames(size_px: tuple[int, int], rng: np.random.Generator) -> list[np.ndarray]:
    """The package's picture at this size, and noise."""
    with default_scene() as (picture, _):
        photo = cv2.resize(read_image(picture), size_px, interpolation=cv2.INTER_CUBIC)
    return [photo, rng.integers(0, 256, photo.shape, np.uint8)]


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def timed(
    image: np.ndarray, people: Detections, cropper: GpuCropper, transfer: Transfer, rounds: int
) -> dict[str, float]:
    """Medians by the names of `Row`."""
    image_size_px = (image.shape[1], image.shape[0])
    crops = np.asarray(make_crops(image, people, CROP_SIDE).image)
    calls: dict[str, Callable[[], object]] = {
        "cut_ms": lambda: make_crops(image, people, CROP_SIDE),
        "upload_ms": lambda: transfer.up(crops),
        "cpu_ms": lambda: transfer.up(np.asarray(make_crops(image, people, CROP_SIDE).image)),
        "tables_ms": lambda: sampling(people.boxes_px, image_size_px, CROP_SIDE),
        "gpu_ms": lambda: cropper(image, people, CROP_SIDE),
    }
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(-WARM_UP, rounds):
        for name, call in calls.items():
            ms = milliseconds(call)
            if number >= 0:
                taken[name].append(ms)
    return {name: statistics.median(taken[name]) for name in calls}


def differences(
    images: list[np.ndarray], people: Detections, cropper: GpuCropper, transfer: Transfer
) -> tuple[float, float]:
    """Largest and mean difference between both ways, grey levels."""
    found = []
    for image in images:
        on_gpu = cropper(image, people, CROP_SIDE).image
        assert isinstance(on_gpu, DeviceArray)
        expected = np.asarray(make_crops(image, people, CROP_SIDE).image)
        found.append(255 * np.abs(transfer.down(on_gpu).astype(np.float64) - expected))
    return float(np.max(found)), float(np.mean(found))


def measured(rounds: int) -> list[Row]:
    rng = np.random.default_rng(0)
    rows = []
    with ExitStack() as stack:
        cropper, transfer = stack.enter_context(GpuCropper()), Transfer(stack)
        for size_px in SIZES_PX:
            images = frames(size_px, rng)
            for count in PEOPLE:
                people = people_of(count, size_px, rng)
                max_grey, mean_grey = differences(images, people, cropper, transfer)
                times = timed(images[0], people, cropper, transfer, rounds)
                row = Row(
                    width_px=size_px[0],
                    height_px=size_px[1],
                    people=count,
                    max_grey=max_grey,
                    mean_grey=mean_grey,
                    **times,
                )
                show(row)
                rows.append(row)
    return rows


def show(row: Row) -> None:
    print(
        f"{row.width_px:>5} x {row.height_px:<5} {row.people:>6}  {row.cut_ms:>7.3f}  {row.upload_ms:>9.3f}"
        f"  {row.cpu_ms:>13.3f}  {row.tables_ms:>9.3f}  {row.gpu_ms:>6.3f}  {row.cpu_ms / row.gpu_ms:>9.2f}x"
        f"  {row.max_grey:>8.2g}  {row.mean_grey:>8.2g}",
        flush=True,
    )


def run(rounds: int) -> dict[str, Any]:
    machine = {
        **asdict(environment(None, True, load_average())),
        "cuda device": asdict(cuda.device_info()),
        "threads of OpenCV": cv2.getNumThreads(),
    }
    result: dict[str, Any] = {"machine": machine, "rounds": rounds, "crop side": CROP_SIDE}
    print(json.dumps(result, indent=1))
    print(
        "\n    frame px  people   cut ms  upload ms  cut+upload ms  tables ms  GPU ms  GPU faster  max grey  mean grey"
    )
    return result | {"rows": [asdict(row) for row in measured(rounds)]}
