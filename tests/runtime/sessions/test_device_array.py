"""Arrays on the GPU: out and in without a copy, nobody's memory freed too early or too late."""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest
from runtime.fake_cuda import fake_cuda

from jotr_deploy.errors import SessionError
from jotr_deploy.runtime.sessions import cuda, device_array
from jotr_deploy.runtime.sessions.device_array import DeviceArray, from_cuda

CPU = 1  # DLDeviceType: lets NumPy look at what is really host memory
DTYPES = ["float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool"]


@pytest.fixture
def gpu():
    with fake_cuda() as fake:
        yield fake
        assert not fake.mistakes


class OnHost:
    """Shows an array's capsule as one of host memory."""

    def __init__(self, array: DeviceArray) -> None:
        self.array = array

    def __dlpack__(self, **_):
        return device_array._capsule(self.array, CPU)

    def __dlpack_device__(self):
        return CPU, 0


class Producer:
    """Another library's array, made of NumPy's, on a pretended GPU."""

    def __init__(self, values: np.ndarray, device: int = 0) -> None:
        self.values, self.device, self.streams = values, device, []

    def __dlpack_device__(self):
        return 2, self.device

    def __dlpack__(self, *, stream):
        self.streams.append(stream)
        return self.values.__dlpack__()


class Interface:
    """Another library's array of the older kind."""

    def __init__(self, values: np.ndarray, **changes: object) -> None:
        self.values = values
        self.__cuda_array_interface__ = {
            "shape": values.shape,
            "typestr": values.dtype.str,
            "data": (values.ctypes.data, False),
            "version": 3,
            "strides": values.strides,
            **changes,
        }


def wrapped(values: np.ndarray) -> DeviceArray:
    return DeviceArray(values.ctypes.data, values.shape, values.dtype, values, 0)


def values_at(array: DeviceArray) -> np.ndarray:
    raw = (ctypes.c_ubyte * array.nbytes).from_address(array.pointer)
    return np.ctypeslib.as_array(raw).view(array.dtype).reshape(array.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5,), (1, 1), (0, 3)])
def test_what_goes_out_is_what_comes_in(rng, dtype, shape):
    values = (rng.random(shape) * 9).astype(dtype)
    seen = np.from_dlpack(OnHost(wrapped(values)))
    assert seen.dtype == values.dtype
    np.testing.assert_array_equal(seen, values)


def test_torch_takes_it_too(rng):
    torch = pytest.importorskip("torch", reason="pip install '.[export]'")
    values = rng.random((3, 4)).astype(np.float32)
    np.testing.assert_array_equal(torch.from_dlpack(OnHost(wrapped(values))).numpy(), values)


@pytest.mark.slow
def test_a_consumer_keeps_the_memory_and_lets_it_go(rng):
    array = wrapped(rng.random(4))
    alive = weakref.ref(array)
    seen = np.from_dlpack(OnHost(array))
    del array
    gc.collect()
    assert alive() is not None
    del seen
    gc.collect()
    assert alive() is None
    assert not device_array._lent


def test_a_capsule_nobody_takes_lets_the_memory_go(rng):
    array = wrapped(rng.random(4))
    alive, capsule = weakref.ref(array), array.__dlpack__()
    del array
    assert alive() is not None
    del capsule
    assert alive() is None


def test_it_says_where_it_is(rng):
    array = wrapped(rng.random((2, 3)).astype(np.float32))
    assert array.__dlpack_device__() == (2, 0)
    interface = array.__cuda_array_interface__
    assert interface == {
        "shape": (2, 3), "typestr": "<f4", "data": (array.pointer, False), "version": 3, "stream": None,
    }  # fmt: skip
    assert wrapped(np.empty((0, 3))).__cuda_array_interface__["data"] == (0, False)


@pytest.mark.parametrize("request_", [{"copy": True}, {"dl_device": (1, 0)}, {"dl_device": (2, 1)}])
def test_it_does_not_copy_for_others(rng, request_):
    with pytest.raises(BufferError, match="only shared in place"):
        wrapped(rng.random(3)).__dlpack__(**request_)


@pytest.mark.parametrize(
    ("rows", "expected"), [(slice(0, 2), [0, 1]), (slice(3, 9), [3, 4]), (slice(2, 2), []), (slice(None), range(5))]
)
def test_rows_are_views(rng, rows, expected):
    values = rng.random((5, 3))
    part = wrapped(values)[rows]
    assert len(part) == len(list(expected))
    np.testing.assert_array_equal(values_at(part) if len(part) else np.empty((0, 3)), values[list(expected)])


@pytest.mark.parametrize("feed", [np.zeros(3), [1, 2], "text", None], ids=lambda feed: type(feed).__name__)
def test_what_is_not_on_a_gpu_stays_as_it_is(gpu, feed):
    assert from_cuda(feed, cuda.Stream()) is feed


def test_torch_tensors_of_the_host_stay_as_they_are(gpu):
    torch = pytest.importorskip("torch", reason="pip install '.[export]'")
    tensor = torch.zeros(3)
    assert from_cuda(tensor, cuda.Stream()) is tensor


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "bool"])
def test_dlpack_arrays_are_used_in_place_once_their_stream_is_handed_over(gpu, rng, dtype):
    values, stream = (rng.random((2, 3)) * 9).astype(dtype), cuda.Stream()
    producer = Producer(values)
    array = from_cuda(producer, stream)
    assert producer.streams == [stream.pointer]
    assert (array.pointer, array.shape, array.dtype) == (values.ctypes.data, (2, 3), values.dtype)
    np.testing.assert_array_equal(values_at(array), values)


@pytest.mark.slow
def test_a_dlpack_producer_may_forget_its_array(gpu, rng):
    values = rng.random(4)
    expected, alive = values.copy(), weakref.ref(values)
    array = from_cuda(Producer(values), cuda.Stream())
    del values
    gc.collect()
    np.testing.assert_array_equal(values_at(array), expected)
    del array
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_interface_arrays_are_used_in_place(gpu, rng, dtype):
    values = (rng.random((2, 3)) * 9).astype(dtype)
    array = from_cuda(Interface(values), cuda.Stream())
    assert (array.pointer, array.shape, array.dtype) == (values.ctypes.data, (2, 3), values.dtype)


@pytest.mark.parametrize(
    ("changes", "waits"),
    [
        ({"stream": None}, False),
        ({}, False),
        ({"stream": 1}, True),
        ({"version": 2}, True),
    ],
    ids=["filled already", "nothing said", "the default stream", "too old to say"],
)
def test_interface_arrays_are_waited_for(gpu, rng, changes, waits):
    stream, done = cuda.Stream(), []
    gpu.queue(1, lambda: done.append("producer"))
    from_cuda(Interface(rng.random(3), **changes), stream)
    stream.synchronize()
    assert done == (["producer"] if waits else [])


@pytest.mark.parametrize("kind", [Interface, Producer])
@pytest.mark.parametrize(
    ("view", "fine"),
    [
        (lambda a: a, True),
        (lambda a: a[:, :, :1], False),
        (lambda a: a.transpose(1, 0, 2), False),
        (lambda a: a[:1], True),
        (lambda a: a[::2], False),
        (lambda a: a[1:2].transpose(1, 0, 2), True),
        (lambda a: a[:0], True),
    ],
    ids=["whole", "column", "transposed", "first row", "every second row", "axis of one moved", "no rows"],
)
def test_only_contiguous_arrays(gpu, rng, kind, view, fine):
    feed = kind(view(rng.random((4, 3, 2))))
    if fine:
        assert from_cuda(feed, cuda.Stream()).shape == feed.values.shape
        return
    with pytest.raises(SessionError) as caught:
        from_cuda(feed, cuda.Stream())
    assert caught.value.cause == f"an input of shape {list(feed.values.shape)} on the GPU is not contiguous"
    assert caught.value.remedy == "give a C-contiguous array (torch: .contiguous(), CuPy: ascontiguousarray)"


def test_arrays_of_another_gpu_are_refused(gpu, rng):
    with pytest.raises(SessionError, match="an input is on GPU 1, the session runs on GPU 0"):
        from_cuda(Producer(rng.random(3), device=1), cuda.Stream())


def test_pycudas_own_context_is_refused(gpu, rng):
    gpu.contexts["current"] = 8
    with pytest.raises(SessionError, match=r"import pycuda\.autoprimaryctx"):
        from_cuda(Interface(rng.random(3)), cuda.Stream())


def test_complex_arrays_are_refused(gpu):
    with pytest.raises(SessionError, match="has a type that no network takes"):
        from_cuda(Producer(np.zeros(3, np.complex64)), cuda.Stream())
