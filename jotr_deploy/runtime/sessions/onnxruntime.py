"""ONNX Runtime as a `Session`."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jotr_deploy.errors import JotrDeployError, MissingDependency, SessionError, install
from jotr_deploy.runtime.sessions.capture_lock import CAPTURES
from jotr_deploy.runtime.sessions.session import Kernel, Session, TensorSpec
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.file_kinds import advice
from jotr_deploy.support.imports import not_importable
from jotr_deploy.support.processor import clips_sums_of, sums_saturate
from jotr_deploy.support.read_errors import shortened, something_else

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_NO_CUDA = "ONNX Runtime could not use CUDA"
_EXPORT_AGAIN = "check the file; export it again"
_COPY = "also copy the weights file, into the folder of this one and under its original name"
_OTHER_OPERATORS = "export it without operators of other libraries, such as plugins of TensorRT or mmdeploy"
_KNOWN_REASONS = tuple(
    (re.compile(pattern), remedy)
    for pattern, remedy in (
        (r"Unsupported model IR version: \d+, max supported IR version: \d+",
         "export it for an older version of ONNX, or pip install --upgrade onnxruntime"),
        (r"Opset \d+ is under development", "export it with an older opset, such as 20"),
        (r"\S+ is not a registered function/op", _OTHER_OPERATORS),
        (r"No opset import for domain \S+", _OTHER_OPERATORS),
        (r"No Op registered for \S+ with domain_version of \d+", _OTHER_OPERATORS),
        (r"External data path does not exist: .*", _COPY),
        (r"(External data path escapes model directory|Absolute path not allowed for external data location).*",
         "put the weights into a file beside it, as onnx.save(model, PATH, save_as_external_data=True) does"),
        (r"External initializer: \S+ .* out of bounds or can not be read in full", f"its weights are cut off: {_COPY}"),
        (r"CUDA failure 2: out of memory|CUBLAS_STATUS_ALLOC_FAILED|Failed to allocate memory for requested buffer.*",
         "free memory: that of a GPU if it runs there (nvidia-smi shows its users)"),
        (r"Protobuf parsing failed", "download or copy it again, and compare its size with that of the original"),
    )
)  # fmt: skip
_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"\S+\.(cc|h):\d+ (.*?::\w+\([^()]*\)( const)? )?")

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeSession(Session):
    """An ONNX file in ONNX Runtime, on the CPU or, with onnxruntime-gpu, on a CUDA device."""

    def __init__(
        self,
        path: Path,
        device: str = "auto",
        threads: int | None = None,
        tf32: bool = False,
        spinning: bool = True,
        refused: JotrDeployError | None = None,
    ) -> None:
        """Load a network; `refused` is an earlier error of CUDA, for the message if this falls back to the CPU too."""
        providers = _providers(device, onnxruntime().get_available_providers(), tf32)
        with CAPTURES.allocating():
            try:
                self._session = load(path, providers, threads, spinning=spinning)
            except SessionError as error:
                if providers == [CPU]:
                    raise
                self._session, refused = load(path, [CPU], threads, spinning=spinning), no_cuda(error)
        self.path = path
        self.device = "cuda" if self._session.get_providers()[0] == CUDA else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise no_cuda(refused)
        self.fallback = no_cuda(refused)
        """The reason why it runs on the CPU, if CUDA was allowed."""
        self.inputs, self.outputs = specifications(path, self._session)
        self.metadata = metadata(path, self._session)

    def _run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        with self._beside_captures():
            return dict(zip(self.outputs, self._session.run(list(self.outputs), feeds), strict=True))

    def _free(self) -> None:
        with self._beside_captures():
            self._session = None

    def _beside_captures(self) -> AbstractContextManager[None]:
        return CAPTURES.allocating() if self.device == "cuda" else nullcontext()


def onnxruntime() -> ModuleType:
    """The module `onnxruntime`.

    Raises:
        MissingDependency: it cannot be imported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        remedy = f"{install('cpu')}; for CUDA, gpu instead of cpu"
        raise not_importable("ONNX Runtime", "onnxruntime", error, remedy) from None
    return onnxruntime


def has_cuda() -> bool:
    """True if ONNX Runtime is installed with CUDA."""
    try:
        return CUDA in onnxruntime().get_available_providers()
    except MissingDependency:
        return False


def profiled(path: Path, feeds: Mapping[str, Array], calls: int, threads: int | None = None) -> list[list[Kernel]]:
    """The kernels of several calls on the CPU, after a warm-up call.

    Raises:
        SessionError: the file cannot be loaded.
        MissingDependency: ONNX Runtime is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="jotr-deploy-profile-") as directory:
        session = load(path, [CPU], threads, profile=Path(directory))
        for _ in range(calls + 1):
            session.run(None, dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text())
    ends = [event["ts"] + event["dur"] for event in events if event["name"] == "model_run"]
    steps: list[list[Kernel]] = [[] for _ in ends]
    for event in events:
        name, kernel, _ = event["name"].partition("_kernel_time")
        if kernel:
            call = next(number for number, end in enumerate(ends) if event["ts"] <= end)
            steps[call].append(Kernel(name, event["args"]["op_name"], event["dur"] / 1000))
    return steps[1:]


def on_cuda(tf32: bool, **options: Any) -> tuple[str, dict[str, str]]:
    """The CUDA provider with its options, for `load`.

    Its own defaults would round products to TF32, and try every algorithm of every convolution for every batch size.

    Args:
        tf32: compute float32 products in TF32: faster, with 10 bits of mantissa.
        options: others, by name.
    """
    ours = {"use_tf32": int(tf32), "cudnn_conv_algo_search": "HEURISTIC", **options}
    return CUDA, {name: str(value) for name, value in ours.items()}


def load(
    network: Path | bytes,
    providers: list[Any],
    threads: int | None = None,
    profile: Path | None = None,
    spinning: bool = True,
) -> Any:
    """An `InferenceSession` for a file, or for a model in memory.

    `profile` is a folder for the timings of its kernels.

    A network in float8 is computed in float32 between its codes: ONNX Runtime's later optimisations would turn it into
    integer kernels, which it then refuses, so only the basic optimisations are enabled.

    Raises:
        SessionError: ONNX Runtime refuses the file.
    """
    source = network if isinstance(network, bytes) else str(network)

    def opened(wanted: list[Any], **kind: bool) -> Any:
        options = _options(threads, profile, spinning, **kind)
        # ONNX Runtime's own fallback to the CPU prints; `OnnxRuntimeSession` has its own.
        return onnxruntime().InferenceSession(source, options, providers=wanted, enable_fallback=0)

    try:
        try:
            session = opened(providers)
            if sums_saturate() and _has_narrow_weights(session):
                return opened(providers, integer_kernels=True)
            return session
        except Exception as error:
            if "float8" not in str(error):
                raise
            return opened(providers, basic=True)
    except Exception as error:  # ONNX Runtime's own classes only derive from Exception
        raise _refused(network, error) from None


def _options(
    threads: int | None, profile: Path | None, spinning: bool, basic: bool = False, integer_kernels: bool = False
) -> Any:
    """Options of an `InferenceSession`; `integer_kernels` allows those that are wrong for most files on this CPU."""
    options = onnxruntime().SessionOptions()
    options.log_severity_level = 4  # errors are also raised
    # Workers wait for their next call asleep: those of one network would keep the cores from the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if sums_saturate() and not integer_kernels:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if basic:
        options.graph_optimization_level = onnxruntime().GraphOptimizationLevel.ORT_ENABLE_BASIC
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile / "profile")
    if threads:
        options.intra_op_num_threads = threads
    return options


def _has_narrow_weights(session: Any) -> bool:
    """True if the file says that integer kernels are right for it on this CPU."""
    try:
        return not clips_sums_of(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError:  # which `metadata` reports
        return False


def _refused(network: Path | bytes, error: Exception) -> SessionError:
    where = "the network" if isinstance(network, bytes) else network
    other = None if isinstance(network, bytes) else something_else(network, "an ONNX model", ("an ONNX model",))
    reason, remedy = _reason(" ".join(str(error).split()) or type(error).__name__)
    why = other or f"ONNX Runtime cannot load it ({shortened(reason)})"
    known = None if isinstance(network, bytes) else advice(network)
    return SessionError(f"{where}: {why}", known or (_EXPORT_AGAIN if other else remedy))


def _reason(text: str) -> tuple[str, str]:
    """The reason in a message of ONNX Runtime, and the remedy."""
    for pattern, remedy in _KNOWN_REASONS:
        if found := pattern.search(text):
            return found.group(), remedy
    return _SOURCE.sub("", _CODE.sub("", text).rpartition("failed:")[2]).strip(), _EXPORT_AGAIN


def no_cuda(refused: JotrDeployError | None = None) -> SessionError:
    """The error for an ONNX Runtime with CUDA that fell back to the CPU, with the error of CUDA if there was one."""
    remedy = "run jotr-deploy doctor to see what is missing"
    if refused is None:
        return SessionError(_NO_CUDA, f"{remedy}; or use --device cpu")
    if refused.cause.startswith(_NO_CUDA):
        return SessionError(refused.cause, refused.remedy)
    if refused.remedy != _EXPORT_AGAIN:  # the file is fine: it has been loaded on the CPU
        remedy = refused.remedy
    return SessionError(f"{_NO_CUDA}: {refused.cause}", f"{remedy}; or use --device cpu")


def specifications(path: Path, session: Any) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Input and output specifications of an `InferenceSession`.

    Raises:
        SessionError: a type that NumPy lacks.
    """
    try:
        inputs = {node.name: _spec(path, node) for node in session.get_inputs()}
        return inputs, {node.name: _spec(path, node) for node in session.get_outputs()}
    except UnicodeDecodeError as error:
        raise _refused(path, error) from None


def metadata(path: Path, session: Any) -> dict[str, str]:
    """The `metadata_props` of an `InferenceSession`.

    Raises:
        SessionError: it is not text.
    """
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError:
        raise SessionError(f"{path}: its metadata is not UTF-8 text", "check the file; export it again") from None


def _providers(device: str, available: list[str], tf32: bool) -> list[Any]:
    if device == "cuda" and CUDA not in available:
        raise SessionError(
            "this ONNX Runtime has no CUDA", f"use --device cpu, or pip uninstall onnxruntime and {install('gpu')}"
        )
    return [*([on_cuda(tf32)] if device != "cpu" and CUDA in available else []), CPU]


def _spec(path: Path, node: Any) -> TensorSpec:
    if node.type not in _DTYPES:
        raise SessionError(f"{path}: {node.name} is a {node.type}, which NumPy does not have", "give another network")
    shape = tuple(size if isinstance(size, int) else size or "?" for size in node.shape)
    return TensorSpec(np.dtype(_DTYPES[node.type]), shape)
