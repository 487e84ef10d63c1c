"""Files for engines made from a bundle's detector and pose network: what is kept, which one is used."""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from canned import write_yolox, yolox_rows
from contracts.fakes import VERSIONS
from engines.tensorrt.fake_machine import content, fake_machine

import jotr_deploy as jd
from jotr_deploy.bundle import Bundle, FileEntry, open_bundle, replace_file, starter_path
from jotr_deploy.engines.tensorrt.engine import check_network
from jotr_deploy.errors import BundleError, JotrDeployError, VerificationError
from jotr_deploy.runtime.finding.people_networks import file_for, open_people_networks, own_networks
from jotr_deploy.runtime.sessions import cuda, onnxruntime, open_session, openvino, tensorrt_engine
from jotr_deploy.runtime.sources.images import write_image
from jotr_deploy.support.choices import BACKENDS
from jotr_deploy.support.precisions import Precision
from jotr_deploy.third_party import derived_people
from jotr_deploy.third_party.derived_people import PeopleNetwork, compare_people, joint_shares
from jotr_deploy.third_party.trial import sample

AS_IT_IS = "nothing was kept; use the original network, or give another --precision"


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A tiny mesh network with the detector and the pose network of this package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: False)
    made, starter = open_bundle(Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))), open_bundle(starter_path())
    for role in ("detector", "pose"):
        made = with_file(made, starter.entry(role), starter.file(role))
    return made


def with_file(bundle: Bundle, entry: FileEntry, file: Path) -> Bundle:
    def make(path: Path) -> FileEntry:
        shutil.copyfile(file, path)
        return entry

    return replace_file(bundle, entry.name, make)


# ── what is made ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("network", "backend", "name", "outputs"),
    [
        ("detector", "onnxruntime", "detector.fp16.onnx", ["boxes", "scores"]),
        ("pose", "onnxruntime", "pose.fp16.onnx", ["joints"]),
        ("detector", "openvino", "detector.bf16.openvino.onnx", ["boxes", "scores"]),
        ("pose", "openvino", "pose.bf16.openvino.onnx", ["joints"]),
    ],
)
def test_a_file_joins_the_bundle(bundle: Bundle, network: Any, backend: Any, name: str, outputs: list[str]) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs OpenVINO: pip install '.[openvino]'")
    built = jd.build_engine(bundle.path, network=network, backend=backend)
    grown = open_bundle(bundle.path)
    entry, first = grown.entry(network, name), grown.entry(network)
    assert built.path == bundle.path / name
    assert first == bundle.entry(network)
    assert (entry.precision, entry.backend) == (name.split(".")[1], {"onnxruntime": "onnx"}.get(backend, backend))
    assert (entry.recipe, entry.batch, entry.error_mm) == (first.recipe, first.batch, None)
    assert list(dict.fromkeys(row.output for row in built.differences)) == outputs
    assert built.trtexec is None
    model = onnx.load(grown.file(network, name))
    ends = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert set(ends) == {onnx.TensorProto.FLOAT}
    if backend == "onnxruntime":  # float16 is computed, not only stored
        kinds = [node.attribute[0].i for node in model.graph.node if node.op_type == "Cast"]
        assert onnx.TensorProto.FLOAT16 in kinds


def test_a_copy_leaves_the_bundle_alone(bundle: Bundle, tmp_path: Path) -> None:
    before = content(bundle.path)
    jd.build_engine(bundle.path, network="pose", backend="onnxruntime", output=tmp_path / "copy")
    assert content(bundle.path) == before
    assert (tmp_path / "copy" / "pose.fp16.onnx").is_file()


# ── what is not ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("network", "backend", "precision", "cause", "remedy"),
    [
        ("detector", "onnxruntime", "int8", "only the mesh network is calibrated, not the detector", "fp16"),
        ("pose", "tensorrt", "fp8", "only the mesh network is calibrated, not the pose", "fp16 or fp32"),
        ("pose", "onnxruntime", "fp32", "ONNX Runtime already runs the bundle's pose in this precision", "fp16"),
        ("pose", "onnxruntime", "bf16",
         "ONNX Runtime cannot execute it on a CPU, so it cannot be verified", "fp16"),
        ("detector", "openvino", "fp32",
         "OpenVINO runs the bundle's detector in this precision anyway, if bench --choose finds it faster", "bf16"),
        ("detector", "openvino", "fp16", "OpenVINO does not compute in it on a CPU", "bf16"),
        ("detector", "tensorrt", "bf16",
         "bfloat16 needs operators of a newer opset than a third-party detector has", "fp16 or fp32"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(
    bundle: Bundle, network: Any, backend: Any, precision: str, cause: str, remedy: str
) -> None:
    before = content(bundle.path)
    with pytest.raises(JotrDeployError) as refused:
        jd.build_engine(bundle.path, network=network, backend=backend, precision=precision)
    assert (refused.value.cause, refused.value.remedy) == (
        f"--precision {precision}: {cause}", f"give --precision {remedy}"
    )  # fmt: skip
    assert content(bundle.path) == before


def test_every_precision_is_built_or_refused_with_a_reason() -> None:
    for backend in BACKENDS:
        for precision in Precision:
            if precision not in derived_people.PRECISIONS[backend]:
                with pytest.raises(JotrDeployError, match="give --precision"):
                    PeopleNetwork("pose").refuse(backend, precision)
    with pytest.raises(JotrDeployError, match=r"--plugin aot: a detector has no sampling operator to replace"):
        PeopleNetwork("detector").refuse("tensorrt", Precision.FP16, "aot")


def test_an_engine_is_no_source(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"plan")
    entry = FileEntry(role="pose", name="pose.engine", sha256="", recipe={"format": "simcc"})
    files = [each for each in bundle.manifest.files if each.role != "pose"]
    other = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": tuple(files)}))
    with_file(other, entry, tmp_path / "x.engine")
    with pytest.raises(BundleError) as refused:
        jd.build_engine(bundle.path, network="pose", backend="onnxruntime")
    assert refused.value.cause == f"{bundle.path}: its pose is pose.engine, but engine files are only made from ONNX"
    assert refused.value.remedy == f"add its ONNX file: jotr-deploy add {bundle.path} --pose FILE.onnx"


def test_none_in_the_bundle(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="the bundle has no detector file"):
        jd.build_engine(tiny_bundle, network="detector", backend="onnxruntime")


@pytest.mark.parametrize("network", ["detector", "pose"])
def test_a_file_that_finds_others_is_not_kept(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, network: Any) -> None:
    """Its first weights are wrong."""
    own = derived_people.to_low_precision

    def broken(*arguments: Any, **options: Any) -> onnx.ModelProto:
        typed = own(*arguments, **options)
        weight = next(each for each in typed.graph.initializer if len(each.dims) == 4)
        weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
        return typed

    monkeypatch.setattr(derived_people, "to_low_precision", broken)
    before = content(bundle.path)
    with pytest.raises(VerificationError) as refused:
        jd.build_engine(bundle.path, network=network, backend="onnxruntime")
    assert refused.value.remedy == AS_IT_IS
    assert content(bundle.path) == before


def test_a_network_that_finds_nobody_proves_nothing(bundle: Bundle, tmp_path: Path) -> None:
    size = (96, 96)
    write_yolox(tmp_path / "d.onnx", yolox_rows(np.zeros((0, 4)), np.zeros(0), size), size)
    blind = with_file(bundle, FileEntry(role="detector", name="detector.onnx", sha256="", recipe={"format": "yolox"}),
                      tmp_path / "d.onnx")  # fmt: skip
    with pytest.raises(VerificationError) as refused:
        jd.build_engine(blind.path, network="detector", backend="onnxruntime")
    assert refused.value.cause == (
        "detector.fp16.onnx: detector.onnx itself finds nothing in the picture inside this package to compare"
    )
    assert refused.value.remedy == "give a photo of fully visible people: --try PHOTO"


@pytest.mark.parametrize("network", ["detector", "pose"])
def test_a_photo_is_looked_at_too(bundle: Bundle, tmp_path: Path, network: Any) -> None:
    """Here the picture of this package again, and one of nobody."""
    write_image(tmp_path / "photo.png", sample().image_bgr)
    once = jd.build_engine(bundle.path, network=network, backend="onnxruntime")
    twice = jd.build_engine(bundle.path, network=network, backend="onnxruntime", picture=tmp_path / "photo.png")
    assert [row.output for row in twice.differences] == [row.output for row in once.differences]
    before = content(bundle.path)
    write_image(tmp_path / "black.png", np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(VerificationError) as refused:
        jd.build_engine(bundle.path, network=network, backend="onnxruntime", picture=tmp_path / "black.png")
    assert refused.value.cause == f"{tmp_path / 'black.png'}: the bundle's detector finds nobody"
    assert refused.value.remedy == "give a photo of fully visible people: --try PHOTO"
    assert content(bundle.path) == before
    with pytest.raises(JotrDeployError, match="--try is for a detector or a pose network"):
        jd.build_engine(bundle.path, backend="onnxruntime", picture=tmp_path / "photo.png")


# ── the same people ──────────────────────────────────────────────────────────────────────────────────────────────

ONE, OTHER = [0.0, 0, 100, 200], [300.0, 0, 400, 200]
NOBODY: list[list[float]] = []


def detector(boxes: list[list[float]], scores: list[float]) -> Any:
    class Finds:
        options = SimpleNamespace(threshold=0.3)

        def __call__(self, image_bgr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)

    return Finds()


@pytest.mark.parametrize(
    ("expected", "found", "gaps"),
    [
        ((NOBODY, []), (NOBODY, []), {}),
        (([ONE, OTHER], [0.9, 0.5]), ([OTHER, ONE], [0.5, 0.9]), {"boxes": 0.0, "scores": 0.0}),
        (([ONE], [0.9]), ([[0, 0, 110, 200]], [0.8]), {"boxes": 10 / 200, "scores": 0.1}),
        (([ONE, OTHER], [0.9, 0.34]), ([ONE], [0.9]), {"boxes": 0.0, "scores": 0.0}),
        (([ONE], [0.9]), ([ONE, OTHER], [0.9, 0.34]), {"boxes": 0.0, "scores": 0.0}),
        (([ONE, OTHER], [0.9, 0.4]), ([ONE], [0.9]), "does not find somebody in the picture, with a score of 0.40"),
        (([ONE], [0.9]), ([ONE, OTHER], [0.9, 0.4]), "alone finds somebody in the picture, with a score of 0.40"),
        (([ONE], [0.9]), ([OTHER], [0.9]), "does not find somebody in the picture, with a score of 0.90"),
        (([ONE], [0.9]), ([ONE, ONE], [0.9, 0.9]), "alone finds somebody in the picture, with a score of 0.90"),
    ],
)
def test_two_detectors(expected: Any, found: Any, gaps: Any) -> None:
    pictures = [np.zeros((200, 400, 3), np.uint8)]
    if isinstance(gaps, str):
        with pytest.raises(VerificationError) as refused:
            compare_people(detector(*expected), detector(*found), pictures, "it")
        assert (refused.value.cause, refused.value.remedy) == (f"it: {gaps}", AS_IT_IS)
        return
    rows = compare_people(detector(*expected), detector(*found), pictures, "it")
    assert {row.output: row.max for row in rows} == pytest.approx(gaps, abs=1e-6)


@pytest.mark.parametrize(
    ("expected", "found", "shares"),
    [
        ([[10, 0, 0.9]], [[10, 20, 0.8]], [0.1]),
        ([[10, 0, 0.9]], [[0, 0, 0]], [1]),
        ([[0, 0, 0]], [[10, 0, 0.9]], [1]),
        ([[10, 0, 0.33]], [[0, 0, 0]], []),
        ([[0, 0, 0]], [[0, 0, 0]], []),
        ([[10, 0, 0.9]], [[np.nan, 0, 0.8]], [np.nan]),
    ],
)
def test_two_joints(expected: Any, found: Any, shares: list[float]) -> None:
    result = joint_shares(np.array([expected], float), np.array([found], float), np.array([200.0]), 0.3)
    np.testing.assert_allclose(result, shares)


def test_nobody_has_joints() -> None:
    assert joint_shares(np.zeros((0, 17, 3)), np.zeros((0, 17, 3)), np.zeros(0), 0.3).shape == (0,)


# ── TensorRT, as fakes ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    return partial(fake_machine, monkeypatch)


@pytest.mark.parametrize("network", ["detector", "pose"])
def test_check_only_needs_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, network: Any) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    for precision in ("fp32", "fp16"):
        assert check_network(bundle, precision, original=PeopleNetwork(network)) == []


@pytest.mark.parametrize(
    ("version", "network", "precision"),
    [
        *((version, "pose", "fp16") for version in VERSIONS),
        ("10.16", "detector", "fp32"),
        ("10.16", "detector", "fp16"),
    ],
)
def test_an_engine_joins_the_bundle_and_finds_people(
    bundle: Bundle, machine: Any, version: str, network: Any, precision: str
) -> None:
    name, known = f"{network}.{precision}.sm87.engine", sample()
    with machine(version) as m:
        built = jd.build_engine(bundle.path, network=network, precision=precision, batch=(1, 2, 4))
        grown = open_bundle(bundle.path)
        entry, first = grown.entry(network, name), grown.entry(network)
        assert built.path == bundle.path / name
        assert (entry.precision, entry.backend, entry.batch, entry.recipe) == (
            precision, "tensorrt", "1:2:4", first.recipe
        )  # fmt: skip
        (shapes,) = m.trt.arguments["IOptimizationProfile.set_shape"]
        side = {"detector": (3, 256, 320), "pose": (3, 128, 96)}[network]
        assert [shapes[end] for end in ("min", "opt", "max")] == [(rows, *side) for rows in (1, 2, 4)]
        copy = grown.entry(network, f"{network}.{precision}.tensorrt.onnx")
        assert copy.only_parsed
        (used,) = own_networks(grown, (network,))
        assert (used.name, used.sha256) == (name, entry.sha256)
        assert own_networks(grown, (network,), "cpu")[0].name == f"{network}.onnx"
        with open_people_networks(grown, (network,)) as networks:
            opened = networks.detector or networks.pose
            assert opened.session.path.name == name
            found = opened(known.image_bgr) if network == "detector" else opened(known.image_bgr, known.boxes_px)
        assert len(found[0])
    assert "--plugin" not in (built.trtexec or "")
    assert own_networks(grown, (network,))[0].name == f"{network}.onnx"  # without TensorRT


def test_the_plan_keeps_the_metadata(bundle: Bundle, machine: Any, tmp_path: Path) -> None:
    """Names of classes are there, and TensorRT forgets them."""
    model = onnx.load(bundle.file("detector"))
    onnx.helper.set_model_props(model, {"names": "{0: 'person'}"})
    onnx.save(model, tmp_path / "named.onnx")
    named = with_file(bundle, bundle.entry("detector"), tmp_path / "named.onnx")
    with machine():
        built = jd.build_engine(named.path, network="detector", batch=(1, 1, 2))
        with open_session(built.path) as session:
            assert session.metadata == {"names": "{0: 'person'}"}


def fixed_batch(bundle: Bundle, tmp_path: Path, rows: int) -> Bundle:
    model = onnx.load(bundle.file("pose"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = rows
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "fixed.onnx")
    return with_file(bundle, bundle.entry("pose").model_copy(update={"batch": str(rows)}), tmp_path / "fixed.onnx")


def test_a_fixed_batch_needs_no_profile(bundle: Bundle, machine: Any, tmp_path: Path) -> None:
    fixed = fixed_batch(bundle, tmp_path, 2)
    with machine() as m:
        with pytest.raises(JotrDeployError) as refused:
            jd.build_engine(fixed.path, network="pose", batch=(1, 2, 4))
        assert refused.value.cause == "--batch 1:2:4: pose.onnx takes 2 at once"
        built = jd.build_engine(fixed.path, network="pose")
        assert "IOptimizationProfile.set_shape" not in m.trt.arguments
        assert open_bundle(fixed.path).entry("pose", built.path.name).batch == "2:2:2"
        assert "Shapes" not in (built.trtexec or "")
        with open_people_networks(open_bundle(fixed.path), ("pose",)) as networks:
            known = sample()
            boxes_px = np.repeat(known.boxes_px, 2, 0)[:3]
            assert networks.pose is not None
            assert networks.pose(known.image_bgr, boxes_px).shape == (3, 17, 3)


# ── which one is used ────────────────────────────────────────────────────────────────────────────────────────────

HERE = {"tensorrt": "10.16.1", "gpu": "GPU", "capability": "9.0"}
FP16, BF16 = "detector.fp16.onnx", "detector.bf16.openvino.onnx"
ENGINE, OLDER, FOREIGN = "detector.fp16.sm90.engine", "detector.fp32.sm90.engine", "detector.fp16.sm87.engine"
COPY = "detector.fp16.tensorrt.onnx"


@pytest.mark.parametrize(
    ("files", "device", "has", "used"),
    [
        ([], "auto", "gpu bf16", "detector.onnx"),
        ([FP16, BF16, ENGINE], "auto", "", "detector.onnx"),
        ([FP16, BF16, ENGINE], "auto", "bf16", BF16),
        ([FP16, BF16], "auto", "gpu bf16", FP16),
        ([FP16, BF16], "cpu", "gpu bf16", BF16),
        ([FP16, BF16], "cuda", "bf16", "detector.onnx"),
        ([ENGINE, COPY, FP16, BF16], "auto", "gpu tensorrt bf16", ENGINE),
        ([ENGINE, COPY, FP16, BF16], "auto", "gpu bf16", FP16),
        ([ENGINE], "cpu", "gpu tensorrt", "detector.onnx"),
        ([OLDER, ENGINE], "auto", "gpu tensorrt", ENGINE),
        ([ENGINE, OLDER], "auto", "gpu tensorrt", OLDER),
        ([FOREIGN, COPY], "auto", "gpu tensorrt", "detector.onnx"),
    ],
)
def test_the_file_for_this_machine(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, files: list[str], device: str, has: str, used: str
) -> None:
    def environment() -> dict[str, str]:
        if "tensorrt" not in has:
            raise JotrDeployError("no TensorRT", "install it")
        return HERE

    monkeypatch.setattr(cuda, "available", lambda: "gpu" in has)
    monkeypatch.setattr(onnxruntime, "has_cuda", lambda: "gpu" in has)
    monkeypatch.setattr(openvino, "computes_bfloat16", lambda: "bf16" in has)
    monkeypatch.setattr(tensorrt_engine, "environment", environment)
    entries = [
        FileEntry(
            role="detector",
            name=name,
            sha256="",
            precision=name.split(".")[1],
            backend={FP16: "onnx", BF16: "openvino"}.get(name, "tensorrt"),
            built_with={} if name.endswith(".onnx") else {**HERE, "capability": "8.7" if name == FOREIGN else "9.0"},
        )
        for name in files
    ]
    manifest = bundle.manifest.model_copy(update={"files": (*bundle.manifest.files, *entries)})
    assert file_for(Bundle(bundle.path, manifest), "detector", device).name == used


def test_a_made_file_that_has_changed_says_how_it_is_made(bundle: Bundle) -> None:
    jd.build_engine(bundle.path, network="pose", backend="onnxruntime")
    (bundle.path / "pose.fp16.onnx").write_bytes(b"other")
    with pytest.raises(BundleError) as refused:
        open_bundle(bundle.path).file("pose", "pose.fp16.onnx")
    assert refused.value.remedy == (
        "make it again: jotr-deploy build-engine BUNDLE --network pose --backend onnxruntime --precision fp16"
    )
