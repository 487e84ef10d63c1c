"""Networks that `bench` compares: every mesh file of a bundle, the same file without its body, and PyTorch eager."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jotr_deploy.bundle import Bundle, FileEntry
from jotr_deploy.errors import JotrDeployError, MissingDependency, OutputError, SessionError, first_line, install
from jotr_deploy.profiling.eager import EAGER, Call, random_network, torch_tf32, torch_threads, under_session_call
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.support.read_errors import read_onnx

_ENGINES = {
    "OnnxRuntimeSession": "ONNX Runtime",
    "OnnxRuntimeCudaSession": "ONNX Runtime",
    "OpenVINOSession": "OpenVINO",
    "TensorRTSession": "TensorRT",
}
_WITHOUT_BODY = ("joints_img", "pose", "betas", "cam")


@dataclass(frozen=True)
class Network:
    """Network ready to be called with the mesh network's feeds."""

    name: str
    engine: str
    precision: str
    device: str
    size_bytes: int | None
    call: Call
    no_body: Call | None  # the same network without its body
    cold_arguments: tuple[str, ...]  # of `cold_start`
    times: Callable[[], Mapping[str, float]] | None = None  # a GPU session's own of its last call, milliseconds


@dataclass(frozen=True)
class Opened:
    """All networks of a comparison."""

    networks: tuple[Network, ...]
    first: Session  # the file that `run` would use, or the first that opens
    notes: tuple[str, ...]  # files left out, with reasons


@contextmanager
def open_networks(
    bundle: Bundle, device: str = "auto", threads: int | None = None, eager: bool = True, tf32: bool = False
) -> Iterator[Opened]:
    """Open everything that can run here; files that cannot are left out with a note.

    Raises:
        BundleError: a file is missing or changed.
        SessionError, MissingDependency: no file of the bundle can be opened.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jotr-deploy-bench-")))
        networks, sessions, notes = [], [], []
        failure: JotrDeployError | None = None
        for entry in bundle.manifest.files:
            if entry.role != "mesh" or entry.only_parsed:
                continue
            path = bundle.file("mesh", entry.name)
            try:
                session = stack.enter_context(open_session(path, device=device, threads=threads, tf32=tf32))
            except (SessionError, MissingDependency) as error:
                failure = failure or error
                notes.append(f"{entry.name} left out: {error.cause}")
                continue
            sessions.append(session)
            networks.append(_of_file(entry, session, _Asked(device, threads, tf32), directory, stack))
        if failure is not None and not sessions:
            raise failure
        if not sessions:
            bundle.entry("mesh")  # raises: there is none
        if eager and importlib.util.find_spec("torch") is None:
            notes.append(f"{EAGER} left out: PyTorch is not installed ({install('export')})")
        elif eager:
            has_body = "vertices" in sessions[0].outputs
            networks.append(_eager(bundle, has_body, _Asked(networks[0].device, threads, tf32), directory, stack))
            notes.append(f"{EAGER}: the same architecture as written in PyTorch, nothing merged; random weights")
        yield Opened(tuple(networks), sessions[0], tuple(notes))


def engine_of(session: Session) -> str:
    """Name of the engine of a session."""
    name = type(session).__name__
    return _ENGINES.get(name, name)


@dataclass(frozen=True)
class _Asked:
    device: str
    threads: int | None
    tf32: bool

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of the process that measures a cold start."""
        threads = () if self.threads is None else ("--threads", str(self.threads))
        return ("--device", self.device, *threads, *(("--tf32",) if self.tf32 else ()))


def _of_file(entry: FileEntry, session: Session, asked: _Asked, directory: Path, stack: ExitStack) -> Network:
    no_body: Session | None = None
    if session.path.suffix == ".onnx" and "vertices" in session.outputs:
        pruned = without_body(session.path, directory)
        no_body = stack.enter_context(open_session(pruned, device=asked.device, threads=asked.threads, tf32=asked.tf32))
    return Network(
        name=entry.name,
        engine=engine_of(session),
        precision=entry.precision or "",
        device=getattr(session, "device", "cpu"),
        size_bytes=session.path.stat().st_size,
        call=session,
        no_body=no_body,
        cold_arguments=("--file", str(session.path), *asked.arguments),
        times=partial(getattr, session, "times") if hasattr(session, "times") else None,
    )


def without_body(path: Path, directory: Path) -> Path:
    """Copy of an ONNX file that ends at the pose, like one exported with `--no-body`.

    Raises:
        OutputError: no room in the temporary directory.
    """
    import onnx
    import onnx.utils

    model = read_onnx(path)
    inputs = [value.name for value in model.graph.input]
    pruned = directory / f"no-body.{path.name}"
    with _room_for(pruned):
        extracted = onnx.utils.Extractor(model).extract_model(inputs, list(_WITHOUT_BODY))
        onnx.helper.set_model_props(extracted, {each.key: each.value for each in model.metadata_props})
        onnx.save(extracted, pruned)
    return pruned


def _eager(bundle: Bundle, has_body: bool, asked: _Asked, directory: Path, stack: ExitStack) -> Network:
    import torch

    asked = replace(asked, device="cuda" if asked.device == "cuda" and torch.cuda.is_available() else "cpu")
    config = bundle.manifest.model
    model = random_network(config, has_body)
    weights = directory / "eager.pt"
    with _room_for(weights):
        torch.save(model.state_dict(), weights)
    stack.enter_context(torch_threads(asked.threads))
    stack.enter_context(torch_tf32(asked.tf32))
    arguments = ("--weights", str(weights), "--config", config.model_dump_json(), *asked.arguments)
    return Network(
        name=EAGER,
        engine="PyTorch",
        precision="fp32",
        device=asked.device,
        size_bytes=None,
        call=under_session_call(model, asked.device),
        no_body=None,
        cold_arguments=(*arguments, *(() if has_body else ("--no-body",))),
    )


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:  # PyTorch's writer raises the latter
        raise OutputError(
            f"{path}: cannot be written ({first_line(error)})", "free disk space there, or point TMPDIR elsewhere"
        ) from error
