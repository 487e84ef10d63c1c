"""Sessions: the contract in ONNX Runtime, files that cannot be opened, and what importing the runtime costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from session_contract import check_session, feeds, pair, save

import jotr_deploy
from jotr_deploy.errors import MissingDependency, SessionError
from jotr_deploy.runtime.sessions import Session, TensorSpec, cuda, open_session
from jotr_deploy.runtime.sessions.onnxruntime import onnxruntime as load_onnxruntime
from jotr_deploy.runtime.sessions.openvino import openvino as load_openvino
from jotr_deploy.runtime.sources.images import decode_image
from jotr_deploy.support.imports import not_importable

SUFFIXES = "give a file that ends in .engine, .onnx, .plan"
BROKEN = "run jotr-deploy doctor to see what is missing, or install it again with pip's --force-reinstall"
HEIC = b"\0\0\0\x18ftypheic" + bytes(4) + b"mif1heic" + bytes(60)
OPERATORS = "export it without operators of other libraries, such as plugins of TensorRT or mmdeploy"
COPY = "also copy the weights file, into the folder of this one and under its original name"


def of_version(path: Path, version: int) -> onnx.ModelProto:
    """The model of a file, said to be of another version of the format."""
    model = onnx.load(path)
    model.ir_version = version
    return model


def weights_apart(path: Path) -> Path:
    """A network whose weights lie in another file, which is returned."""
    weights = [numpy_helper.from_array(np.ones((64, 64), np.float32), "w")]
    answer = helper.make_tensor_value_info("c", TensorProto.FLOAT, [64, 64])
    made = helper.make_graph([helper.make_node("Identity", ["w"], ["c"])], "g", [], [answer], weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="w.data", size_threshold=0)
    return path.with_name("w.data")


@pytest.mark.parametrize(
    "options", [{}, {"device": "cpu"}, {"threads": 1}, {"threads": 3}, {"backend": "onnxruntime"}, {"spinning": False}]
)
def test_onnx_runtime_keeps_the_contract(tmp_path: Path, options: dict[str, Any]) -> None:
    check_session(open_session(pair(tmp_path / "pair.onnx"), **options))


@pytest.mark.parametrize("spinning", [True, False])
def test_threads_need_not_wait_busily(tmp_path: Path, spinning: bool) -> None:
    session = open_session(pair(tmp_path / "pair.onnx"), device="cpu", spinning=spinning)
    options = session._session.get_session_options()
    key = "session.intra_op.allow_spinning"
    if spinning:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry(key)
    else:
        assert options.get_session_config_entry(key) == "0"


def test_leaving_the_block_closes_it_whatever_happens(tmp_path: Path) -> None:
    session = open_session(pair(tmp_path / "pair.onnx"))
    with pytest.raises(ZeroDivisionError), session:
        raise ZeroDivisionError
    with pytest.raises(SessionError, match="the session is closed"):
        session(feeds())


class Recording(Session):
    """An engine that keeps what reaches it."""

    path = Path("recording.onnx")
    inputs: Mapping[str, TensorSpec] = {name: TensorSpec(np.dtype(np.float32), ("batch", 3)) for name in "ab"}
    outputs: Mapping[str, TensorSpec] = {}

    def __init__(self) -> None:
        self.feeds: list[dict[str, Any]] = []
        self.freed = 0

    def _run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        self.feeds.append(feeds)
        return {}

    def _free(self) -> None:
        self.freed += 1


def test_an_engine_is_given_contiguous_arrays_in_its_own_order_and_freed_once() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    session = Recording()
    with session:
        session({"b": np.asfortranarray(array), "a": array[::-1]})
    session.close()
    (feeds,) = session.feeds
    assert list(feeds) == ["a", "b"]
    assert all(feed.flags.c_contiguous for feed in feeds.values())
    np.testing.assert_array_equal(feeds["a"], array[::-1])
    assert session.freed == 1


def test_dimensions_without_a_name_need_not_agree(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["a", "b"], ["c"], axis=0)]
    with open_session(save(tmp_path / "free.onnx", nodes, {"a": [None], "b": [None]}, ["c"], [None])) as session:
        assert session.inputs["a"] == TensorSpec(np.dtype(np.float32), ("?",))
        assert session({"a": np.ones(2, np.float32), "b": np.zeros(1, np.float32)})["c"].tolist() == [1, 1, 0]


def test_a_single_number_is_an_input(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["a"], ["c"])]
    with open_session(save(tmp_path / "number.onnx", nodes, {"a": []}, ["c"], [])) as session:
        assert session({"a": np.float32(3).reshape(())})["c"].tolist() == 3


@pytest.mark.parametrize(
    ("make", "cause", "remedy"),
    [
        (lambda p: None, "{path}: no such network file", "check the path"),
        (Path.mkdir, "{path}: is not a network file: it is a folder", SUFFIXES),
        (lambda p: p.symlink_to("nowhere"), "{path}: is not a network file: it is a link that leads nowhere",
         SUFFIXES),
        (lambda p: p.write_bytes(b"hello"), "{path}: not an ONNX model: it is plain text",
         "check the file; export it again"),
        (lambda p: p.write_bytes(b""), "{path}: not an ONNX model: it is an empty file",
         "download or copy it again, and compare its size with that of the original"),
        (lambda p: p.write_bytes(pair(p).read_bytes()[:-40]),
         "{path}: ONNX Runtime cannot load it (Protobuf parsing failed)",
         "download or copy it again, and compare its size with that of the original"),
        (lambda p: save(p, [helper.make_node("Levitate", ["a"], ["c"])], {"a": [1]}, ["c"], [1]),
         "{path}: ONNX Runtime cannot load it (No Op registered for Levitate with domain_version of ", OPERATORS),
        (lambda p: save(p, [helper.make_node("Levitate", ["a"], ["c"], domain="far")], {"a": [1]}, ["c"], [1]),
         "{path}: ONNX Runtime cannot load it (No opset import for domain 'far')", OPERATORS),
        (lambda p: save(p, [helper.make_node("Identity", ["b"], ["c"])], {"a": [1]}, ["c"], [1]),
         "{path}: ONNX Runtime cannot load it (Invalid model. Node input 'b' is not a graph input",
         "check the file; export it again"),
        (lambda p: onnx.save(of_version(pair(p), 99), p),
         "{path}: ONNX Runtime cannot load it (Unsupported model IR version: 99, max supported IR version: ",
         "export it for an older version of ONNX, or pip install --upgrade onnxruntime"),
        (lambda p: weights_apart(p).unlink(),
         "{path}: ONNX Runtime cannot load it (External data path does not exist: ", COPY),
        (lambda p: weights_apart(p).write_bytes(b"version https://git-lfs"),
         "{path}: ONNX Runtime cannot load it (External initializer: w offset: ",
         f"its weights are cut off: {COPY}"),
        (lambda p: save(p, [helper.make_node("Identity", ["a"], ["c"])], {"a": [1]}, ["c"], [1], TensorProto.STRING),
         "{path}: a is a tensor(string), which NumPy does not have", "give another network"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], Any], cause: str, remedy: str
) -> None:
    path = tmp_path / "mesh.onnx"
    make(path)
    with pytest.raises(SessionError) as refusal:
        open_session(path)
    assert refusal.value.cause.startswith(cause.format(path=path))
    assert "\n" not in refusal.value.cause
    assert refusal.value.remedy == remedy
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "content", "said", "remedy"),
    [
        ("mesh.xyz", bytes(range(200, 250)), "cannot open '.xyz'", SUFFIXES),
        ("mesh", b"hello", "cannot open '': it is plain text", SUFFIXES),
        ("mesh.pt", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "cannot open '.pt': it is an old-style PyTorch file",
         "export it to ONNX with the project that it is from, and give that file"),
        ("mesh.zip", b"\x1f\x8b", "cannot open '.zip': it is a gzip archive", "unpack it and give the file inside"),
        ("mesh.bin", None, "cannot open '.bin': it is an ONNX model", "call it mesh.onnx"),
        ("mesh.engine", None, "cannot open '.engine': it is an ONNX model", "call it mesh.onnx"),
    ],
)  # fmt: skip
def test_unknown_formats(tmp_path: Path, name: str, content: bytes | None, said: str, remedy: str) -> None:
    (tmp_path / name).write_bytes(pair(tmp_path / "pair.onnx").read_bytes() if content is None else content)
    with pytest.raises(SessionError) as refusal:
        open_session(tmp_path / name)
    assert refusal.value.cause == f"{tmp_path / name}: {said}"
    assert refusal.value.remedy == remedy


def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path) -> None:
    pair(tmp_path / "pair.onnx").rename(tmp_path / "PAIR.ONNX")
    check_session(open_session(tmp_path / "PAIR.ONNX"))


def test_another_backend(tmp_path: Path) -> None:
    path = pair(tmp_path / "pair.onnx")
    with pytest.raises(SessionError) as refusal:
        open_session(path, backend="tensorrt")
    assert (refusal.value.cause, refusal.value.remedy) == (
        f"{path}: tensorrt cannot open '.onnx'", "use --backend onnxruntime or openvino",
    )  # fmt: skip


def test_cuda_needs_an_onnx_runtime_with_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    path = pair(tmp_path / "pair.onnx")
    with pytest.raises(SessionError) as refusal:
        open_session(path, device="cuda")
    assert refusal.value.cause == "this ONNX Runtime has no CUDA"
    assert (
        refusal.value.remedy
        == "use --device cpu, or pip uninstall onnxruntime and pip install '.[gpu]' in a clone of jotr-deploy"
    )
    check_session(open_session(path, device="auto"))


def test_a_file_of_no_known_suffix_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SessionError) as refusal:
        open_session(tmp_path / "mesh.xyz")
    assert (refusal.value.cause, refusal.value.remedy) == (f"{tmp_path / 'mesh.xyz'}: no such network file", SUFFIXES)


CUBLAS = "libcublasLt.so.12: cannot open shared object file"


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (ModuleNotFoundError("No module named 'a'", name="a"), "X is not installed", "pip install a"),
        (ModuleNotFoundError("No module named 'a.b'", name="a.b"), "X is not installed", "pip install a"),
        (ModuleNotFoundError("No module named 'ab'", name="ab"), "X cannot be imported (No module named 'ab')", BROKEN),
        (ModuleNotFoundError("halted"), "X cannot be imported (halted)", BROKEN),
        (ImportError(f"{CUBLAS}\nmore", name="a.b"), f"X cannot be imported ({CUBLAS})", BROKEN),
    ],
)
def test_only_a_package_that_is_not_there_is_not_installed(error: ImportError, said: str, remedy: str) -> None:
    found = not_importable("X", "a.b", error, "pip install a", ", or wait")
    assert (found.cause, found.remedy) == (said, f"{remedy}, or wait")


@pytest.mark.parametrize(
    ("module", "what", "use"),
    [
        ("onnxruntime", "ONNX Runtime", load_onnxruntime),
        ("openvino", "OpenVINO", load_openvino),
        ("cuda.bindings.runtime", "cuda-bindings", cuda.runtime),
        ("pi_heif", "a: a HEIC picture, and the package pi-heif", lambda: decode_image(HEIC, "a")),
    ],
)
def test_a_package_whose_import_fails(
    monkeypatch: pytest.MonkeyPatch, module: str, what: str, use: Callable[[], Any]
) -> None:
    class Broken(MetaPathFinder):
        def find_spec(self, name: str, *_: Any) -> None:
            if name == module.split(".")[0]:
                raise ImportError(CUBLAS)

    for name in [name for name in sys.modules if f"{module}.".startswith(f"{name}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(MissingDependency) as refusal:
        use()
    assert refusal.value.cause == f"{what} cannot be imported ({CUBLAS})"
    assert refusal.value.remedy.startswith(BROKEN)


def test_onnx_runtime_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency) as refusal:
        open_session(pair(tmp_path / "pair.onnx"))
    assert refusal.value.cause == "ONNX Runtime is not installed"
    assert refusal.value.remedy == "pip install '.[cpu]' in a clone of jotr-deploy; for CUDA, gpu instead of cpu"


def loaded_after(statement: str) -> set[str]:
    """The top-level packages in `sys.modules` after a statement in a new interpreter."""
    script = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def modules(*folders: str) -> list[str]:
    root = Path(jotr_deploy.__file__).parent
    paths = [path for folder in folders for path in (root / folder).rglob("*.py")]
    return sorted(".".join(path.relative_to(root.parent).with_suffix("").parts) for path in paths)


@pytest.mark.parametrize("folder", ["runtime", "visual", "geometry", "engines"])
def test_no_framework_is_loaded_before_it_is_used(folder: str) -> None:
    heavy = {"torch", "tensorrt", "onnxruntime", "openvino", "onnxscript", "pycuda", "cupy", "matplotlib", "scipy"}
    found = modules(folder)
    assert f"jotr_deploy.{folder}.__init__" in found
    assert not heavy & loaded_after(f"import {', '.join(found)}")


@pytest.mark.parametrize("option", ["--help", "--version", "run --help", "export --help", "doctor"])
def test_the_command_line_starts_light(option: str) -> None:
    call = f"import sys; sys.argv = ['jotr-deploy', *'{option}'.split()]\nfrom jotr_deploy.cli import main"
    heavy = {"torch", "tensorrt", "onnxruntime", "onnx", "cv2", "numpy"}
    assert not heavy & loaded_after(f"{call}\ntry:\n    main()\nexcept SystemExit as end:\n    assert not end.code")
