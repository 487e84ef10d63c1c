"""The repository for Triton: its configurations by Triton's own schema, and its pipeline on a stand-in for Triton.

Triton itself has never loaded it: these are the checks that a machine without Triton allows.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from outcome import Outcome, tree
from running_server import SCENE

from jotr_deploy import load
from jotr_deploy.bundle import Bundle, FileEntry, open_bundle, sha256_of, starter_path, write_manifest
from jotr_deploy.errors import BundleError
from jotr_deploy.people import LAYOUT
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.serving.triton_repository import WARMED, write_repository

pytestmark = pytest.mark.slow
ROLES = ("detector", "pose", "mesh")


@pytest.fixture(scope="module")
def schema() -> Any:
    """The messages of Triton's configurations, as its own client has them compiled."""
    place = "tritonclient/grpc/model_config_pb2.py"  # as a file: importing its package would need grpcio
    try:
        file = next(each.locate() for each in files("tritonclient") or () if str(each) == place)
    except (PackageNotFoundError, StopIteration):
        pytest.skip("Triton's schema is missing: pip install tritonclient")
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("triton") / "models"
    write_repository(open_bundle(starter_path()), place)
    return place


def configs(repository: Path, schema: Any) -> dict[str, Any]:
    """Every configuration; a field, value or type that Triton does not know is an error."""
    return {
        folder.name: text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())
        for folder in repository.iterdir()
    }


def test_the_repository_keeps_the_rules_of_triton(repository: Path, schema: Any) -> None:
    found = configs(repository, schema)
    assert set(found) == {*ROLES, "people"}
    for name, config in found.items():
        assert config.name == name
        assert [path.name for path in (repository / name).iterdir() if path.is_dir()] == ["1"]
        assert (repository / name / "1" / config.default_model_filename).is_file()
        assert config.backend
        assert not config.platform
        assert [group.count >= 1 for group in config.instance_group] == [True]
    people = found["people"]
    assert (people.backend, people.max_batch_size, people.HasField("dynamic_batching")) == ("python", 0, False)
    assert [(each.name, each.optional) for each in people.input] == [
        ("image", True), ("image_bgr", True), ("boxes", True),
    ]  # fmt: skip
    assert [each.name for each in people.output] == [*LAYOUT, "faces"]


@pytest.mark.parametrize("role", ROLES)
def test_the_networks_are_configured_as_they_are(repository: Path, schema: Any, role: str) -> None:
    config = configs(repository, schema)[role]
    assert config.backend == "onnxruntime"
    assert config.max_batch_size >= 16  # the pipeline sends as many
    assert config.instance_group[0].kind == schema.ModelInstanceGroup.KIND_CPU
    policy = config.dynamic_batching.default_queue_policy
    assert policy.default_timeout_microseconds > 0  # at 0 a client's own timeout is ignored
    assert policy.allow_timeout_override
    assert policy.max_queue_size > 0
    with open_session(repository / role / "1" / "model.onnx", device="cpu") as session:
        for specs, tensors in ((session.inputs, config.input), (session.outputs, config.output)):
            assert {name: list(spec.shape[1:]) for name, spec in specs.items()} == {
                each.name: list(each.dims) for each in tensors
            }
            assert {each.data_type for each in tensors} == {schema.TYPE_FP32}
        assert [each.batch_size for each in config.model_warmup] == list(WARMED)
        for warm in config.model_warmup:
            feeds = {name: np.zeros((warm.batch_size, *each.dims), np.float32) for name, each in warm.inputs.items()}
            assert all(len(rows) == warm.batch_size for rows in session(feeds).values())


def test_weights_are_stored_once(repository: Path) -> None:
    mesh, copy = repository / "mesh/1/model.onnx", repository / "people/1/bundle/mesh.onnx"
    assert mesh.read_bytes() == copy.read_bytes()
    assert mesh.samefile(copy)
    open_bundle(repository / "people/1/bundle").file("mesh")


class FakeTriton(ModuleType):
    """`triton_python_backend_utils` that runs the networks of a repository, by its configurations."""

    def __init__(self, repository: Path, configs: dict[str, Any]) -> None:
        super().__init__("triton_python_backend_utils")
        self.calls: list[tuple[str, int]] = []
        self.broken: str | None = None
        sessions = {role: open_session(repository / role / "1/model.onnx", device="cpu", threads=1) for role in ROLES}
        fake = self

        class Tensor:
            def __init__(self, name: str, array: np.ndarray) -> None:
                assert isinstance(array, np.ndarray)
                assert array.flags.c_contiguous
                self._name, self._array = name, array

            def name(self) -> str:
                return self._name

            def as_numpy(self) -> np.ndarray:
                return self._array

        class TritonError:
            def __init__(self, message: str) -> None:
                self._message = message

            def message(self) -> str:
                return self._message

        class InferenceResponse:
            def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
                self._tensors, self._error = list(output_tensors), error

            def has_error(self) -> bool:
                return self._error is not None

            def error(self) -> TritonError | None:
                return self._error

            def output_tensors(self) -> list[Tensor]:
                return self._tensors

        class InferenceRequest:
            def __init__(self, model_name: str, requested_output_names: list[str], inputs: list[Tensor]) -> None:
                self.model, self.names, self.inputs = model_name, requested_output_names, inputs

            def exec(self) -> InferenceResponse:
                config, rows = configs[self.model], len(self.inputs[0].as_numpy())
                assert 1 <= rows <= config.max_batch_size
                expected = {each.name: list(each.dims) for each in config.input}
                assert {each.name(): list(each.as_numpy().shape[1:]) for each in self.inputs} == expected
                assert set(self.names) <= {each.name for each in config.output}
                fake.calls.append((self.model, rows))
                if self.model == fake.broken:
                    return InferenceResponse(error=TritonError("out of memory"))
                results = sessions[self.model]({each.name(): each.as_numpy() for each in self.inputs})
                return InferenceResponse([Tensor(name, results[name]) for name in self.names])

        def by_name(tensors: Any, name: str) -> Tensor | None:
            return next((each for each in tensors if each.name() == name), None)

        self.Tensor, self.TritonError = Tensor, TritonError
        self.InferenceRequest, self.InferenceResponse = InferenceRequest, InferenceResponse
        self.get_output_tensor_by_name = lambda response, name: by_name(response.output_tensors(), name)
        self.get_input_tensor_by_name = lambda request, name: by_name(request.tensors, name)

    def request(self, outputs: list[str], **arrays: np.ndarray) -> SimpleNamespace:
        tensors = [self.Tensor(name, array) for name, array in arrays.items()]
        return SimpleNamespace(tensors=tensors, requested_output_names=lambda: outputs)


@pytest.fixture
def triton(repository: Path, schema: Any, monkeypatch: pytest.MonkeyPatch) -> FakeTriton:
    fake = FakeTriton(repository, configs(repository, schema))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", fake)
    return fake


@pytest.fixture
def model(repository: Path, triton: FakeTriton) -> Any:
    """`model.py` as Triton loads it."""
    spec = importlib.util.spec_from_file_location("model", repository / "people/1/model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    made.initialize({"model_repository": str(repository / "people"), "model_version": "1"})
    yield made
    made.finalize()


def test_the_pipeline_in_triton_equals_the_pipeline(model: Any, triton: FakeTriton) -> None:
    picture = np.array([SCENE.read_bytes()], object)
    names = [*LAYOUT, "faces"]
    whole, bad, some = model.execute(
        [
            triton.request(names, image=picture),
            triton.request(names, image=np.array([b"no picture"], object)),
            triton.request(["betas"], image=picture, boxes=np.float32([[250, 180, 480, 640]])),
        ]
    )
    with load(threads=1, people="detector") as expected:
        people = expected(SCENE)
        for each in whole.output_tensors():
            wanted = expected.faces if each.name() == "faces" else getattr(people, each.name())
            np.testing.assert_array_equal(each.as_numpy(), wanted, err_msg=each.name())
        assert [each.name() for each in whole.output_tensors()] == names
        assert bad.error().message().startswith("the body is not a picture; send the file")
        boxes = expected(SCENE, boxes=[[250, 180, 480, 640]])
        assert [each.name() for each in some.output_tensors()] == ["betas"]
        np.testing.assert_array_equal(some.output_tensors()[0].as_numpy(), boxes.betas)
    assert {role for role, _ in triton.calls} == set(ROLES)
    assert ("mesh", 2) in triton.calls


def test_nobody_and_failures_are_answers_too(model: Any, triton: FakeTriton) -> None:
    grey = np.full((60, 80, 3), 90, np.uint8)
    nobody, nothing, both = model.execute(
        [
            triton.request(["vertices_m"], image_bgr=grey),
            triton.request(["vertices_m"]),
            triton.request(["vertices_m"], image_bgr=grey, image=np.array([SCENE.read_bytes()], object)),
        ]
    )
    assert nobody.output_tensors()[0].as_numpy().shape == (0, 6890, 3)
    assert all("give one of image" in each.error().message() for each in (nothing, both))
    triton.broken = "pose"
    (failed,) = model.execute([triton.request(["betas"], image=np.array([SCENE.read_bytes()], object))])
    assert failed.error().message() == "pose: out of memory; see the log of Triton"


# ── engines ──────────────────────────────────────────────────────────────────────────────────────────────────────


def with_engines(folder: Path, *engines: tuple[str, str, str]) -> Bundle:
    """The starter with files that stand for engines: (capability, batch, plugin)."""
    shutil.copytree(starter_path(), folder)
    manifest = open_bundle(folder).manifest
    entries = []
    for capability, batch, plugin in engines:
        file = folder / f"mesh.sm{capability.replace('.', '')}.engine"
        file.write_bytes(capability.encode())
        made_with = {"tensorrt": "10.16.1", "capability": capability, "plugin": plugin}
        entries.append(FileEntry(role="mesh", name=file.name, sha256=sha256_of(file), backend="tensorrt",
                                 batch=batch, built_with=made_with))  # fmt: skip
    write_manifest(folder, manifest.model_copy(update={"files": (*manifest.files, *entries)}))
    return open_bundle(folder)


@pytest.mark.parametrize(("device", "used"), [("auto", True), ("cuda", True), ("cpu", False)])
def test_engines_are_chosen_by_compute_capability(tmp_path: Path, schema: Any, device: str, used: bool) -> None:
    bundle = with_engines(tmp_path / "bundle", ("8.6", "1:4:16", "none"), ("9.0", "1:8:32", "library"))
    written = write_repository(bundle, tmp_path / "models", device)
    found = configs(tmp_path / "models", schema)
    mesh, place = found["mesh"], tmp_path / "models/mesh/1"
    if not used:
        assert (written.engines, mesh.backend, dict(mesh.cc_model_filenames)) == ((), "onnxruntime", {})
        return
    assert (mesh.backend, found["pose"].backend) == ("tensorrt", "onnxruntime")
    assert dict(mesh.cc_model_filenames) == {"8.6": "mesh.sm86.engine", "9.0": "mesh.sm90.engine"}
    assert sorted(path.name for path in place.iterdir()) == sorted(written.engines)
    assert (written.tensorrt, written.plugin) == (("10.16.1",), True)
    assert {each.instance_group[0].kind for name, each in found.items() if name != "people"} == {
        schema.ModelInstanceGroup.KIND_GPU
    }
    assert [each.name for each in open_bundle(tmp_path / "models/people/1/bundle").manifest.files] == [
        "detector.onnx", "pose.onnx", "mesh.onnx", "faces.npy",
    ]  # fmt: skip


def test_an_engine_for_fewer_rows_and_a_bundle_without_a_detector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="takes at most 8 rows"):
        write_repository(with_engines(tmp_path / "small", ("9.0", "1:4:8", "none")), tmp_path / "models")
    bundle = open_bundle(starter_path())
    kept = tuple(each for each in bundle.manifest.files if each.role != "detector")
    with pytest.raises(BundleError, match="has no detector"):
        write_repository(Bundle(bundle.path, bundle.manifest.model_copy(update={"files": kept})), tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "unused",
    [
        ("--host", "0.0.0.0"),
        ("--port", "99"),
        ("--token-file", "/nonexistent"),
        ("--no-auth",),
        ("--people", "hog"),
        ("--file", "mesh.int8.onnx"),
        ("--threads", "1"),
        ("--at-once", "1"),
        ("--limit", "1"),
        ("--deadline", "1"),
        ("--drain", "1"),
    ],
    ids=lambda unused: unused[0],
)
def test_an_option_of_the_server_is_refused(cli: Callable[..., Outcome], tmp_path: Path, unused: tuple[str]) -> None:
    mistake = cli("serve", "starter", "--triton", tmp_path / "models", *unused).mistake
    assert mistake == (f"--triton and {unused[0]} are both given", "leave one of them out")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_a_repository_has_a_new_directory(cli: Callable[..., Outcome], tmp_path: Path, make: Any) -> None:
    make(tmp_path / "models")
    mistake = cli("serve", "starter", "--triton", tmp_path / "models").mistake
    assert mistake == (f"{tmp_path}/models: already exists", "give a new directory to --triton")


def test_the_verb_writes_it_and_says_how_to_start(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = cli("serve", "starter", "--triton", tmp_path / "models")
    assert outcome.code == 0
    assert "tritonserver --model-repository" in outcome.out.replace("\n", " ")
    before = tree(tmp_path)
    again = cli("serve", "starter", "--triton", tmp_path / "models")
    assert again.code == 2
    assert again.mistake == (f"{tmp_path}/models: already exists", "give a new directory to --triton")
    assert tree(tmp_path) == before
    assert json.loads((tmp_path / "models/people/1/networks.json").read_text()).keys() == set(ROLES)
