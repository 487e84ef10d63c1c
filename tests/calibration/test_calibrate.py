"""From crops to a file in the bundle: frames, sensitivity, budget, cache, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from calibration.conftest import ANY_MM, Finished
from one_millimetre import OneMillimetre
from onnx import numpy_helper

from jotr_deploy.bundle import Bundle, FileEntry, open_bundle, replace_file, sha256_of
from jotr_deploy.calibration import eight_bit_copy as module
from jotr_deploy.calibration.calibration_crops import CropSet, crops_of_pictures, synthetic_crops
from jotr_deploy.calibration.eight_bit_copy import blocks_of, calibrate
from jotr_deploy.calibration.placement import chosen_nodes
from jotr_deploy.calibration.quantize import sites
from jotr_deploy.calibration.sensitivity import DriftMeter, search
from jotr_deploy.config import ModelConfig
from jotr_deploy.engines.onnxruntime import build_onnxruntime
from jotr_deploy.engines.openvino import build_openvino
from jotr_deploy.engines.tensorrt.engine import check_network
from jotr_deploy.errors import BundleError, JotrDeployError, VerificationError
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.support.cache import user_cache
from jotr_deploy.support.precisions import Precision
from jotr_deploy.support.processor import WEIGHT_BITS, sums_saturate

pytestmark = pytest.mark.slow


@pytest.fixture
def drifts_1_mm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DriftMeter", OneMillimetre)


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three pictures, and one that is none, in natural order between them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1.png", "3.png", "10.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (60, 40, 3), np.uint8))
    (folder / "2.png").write_bytes(b"not a picture")
    return folder


# ── crops ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_synthetic_crops_are_the_same_again() -> None:
    config = ModelConfig(crop_side=32, voxel_grid=1)
    first, again, more = (synthetic_crops(count, config) for count in (3, 3, 5))
    assert len(first) == 3
    assert first.sha256 == again.sha256 != more.sha256
    np.testing.assert_array_equal(first.feeds["image"], more.feeds["image"][:3])
    assert first.feeds["image"].shape == (3, 3, 32, 32)


def test_every_fourth_crop_is_held_out(crops: CropSet) -> None:
    used, held = crops.split()
    assert held.tolist() == [3, 7, 11, 15]
    assert sorted([*used, *held]) == list(range(16))


def test_batches(crops: CropSet) -> None:
    assert [len(feeds["image"]) for feeds in crops.batches(np.arange(11))] == [8, 3]
    assert crops.batches(np.arange(0)) == []
    assert crops.batches(np.arange(2))[0].keys() == {"image", "joints", "joints_mask"}


def test_a_picture_that_cannot_be_read_is_left_out_and_named(bundle: Bundle, photos: Path) -> None:
    found = crops_of_pictures(bundle, photos, None, 8)
    assert found.skipped == ("2.png",)
    assert len(found) == 3
    shutil.copy(photos / "1.png", photos / "2.png")
    whole = crops_of_pictures(bundle, photos, None, 8)
    assert whole.skipped == ()
    assert len(whole) == 4
    assert len(crops_of_pictures(bundle, photos, None, 2)) == 2


def test_no_picture_can_be_read(bundle: Bundle, photos: Path) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"")
    with pytest.raises(JotrDeployError, match="none of 4 images can be read"):
        crops_of_pictures(bundle, photos, None, 8)


@pytest.mark.parametrize(
    ("entries", "cause"),
    [
        ([], "nobody to calibrate with"),
        (
            [{"image_id": "1.png", "category_id": 1, "keypoints": [99999.0, 99999.0, 1.0] * 17}],
            "nobody in the file can be used",
        ),
    ],
)
def test_nobody_in_the_pictures_or_in_the_file(bundle: Bundle, photos: Path, entries: list[object], cause: str) -> None:
    (photos / "2.png").unlink()
    nobody = photos / "nobody.json"
    nobody.write_text(json.dumps(entries))
    with pytest.raises(JotrDeployError, match=cause):
        crops_of_pictures(bundle, photos, nobody, 8)


# ── what blocks cost ─────────────────────────────────────────────────────────────────────────────────────────────


def test_blocks_go_back_to_float_from_the_costliest(network: onnx.ModelProto) -> None:
    names = list(chosen_nodes(network))
    cost = {name: float(place + 1) for place, name in enumerate(names)}
    largest = dict.fromkeys(sites(network).tensors, 1.0)

    def meter(model: onnx.ModelProto) -> np.ndarray:
        stored = {tensor.name for tensor in model.graph.initializer}
        blocks = chosen_nodes(network).items()
        present = [name for name, found in blocks if f"{found.weighted[0].input[1]}.int8" in stored]
        return np.full(4, sum(cost[name] for name in present))

    _, found = search(network, largest, meter, budget_mm=6.0)
    assert [block.name for block in found.blocks] == names[::-1]
    assert found.chosen == tuple(names[2::-1])  # 1 + 2 + 3
    assert found.drift_mm == found.p95_mm == 6
    assert found.all_mm == sum(cost.values())
    assert {block.name: block.alone_mm for block in found.blocks} == cost
    with pytest.raises(JotrDeployError) as caught:
        search(network, largest, meter, budget_mm=0.5)
    assert caught.value.cause == (
        f"no block fits into 0.5 mm: {names[0]} alone drifts 1 mm, all together {sum(cost.values()):.2g} mm, "
        f"most of it in {names[-1]} ({cost[names[-1]]:.2g} mm)"
    )


def test_drift_of_the_network_itself(network: onnx.ModelProto, crops: CropSet, everything: np.ndarray) -> None:
    meter = DriftMeter(network, crops.batches(everything))
    np.testing.assert_array_equal(meter(network), np.zeros(16))


def test_an_output_that_is_not_finite(network: onnx.ModelProto, crops: CropSet, everything: np.ndarray) -> None:
    meter = DriftMeter(network, crops.batches(everything))
    broken = onnx.ModelProto()
    broken.CopyFrom(network)
    head = next(node for node in broken.graph.node if node.name == "heads.betas/Gemm")
    weight = next(tensor for tensor in broken.graph.initializer if tensor.name == head.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(weight.dims), np.nan, np.float32), weight.name))
    with pytest.raises(VerificationError, match="betas is not finite"):
        meter(broken)


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_calibrated(finished: Finished, crops: CropSet) -> None:
    result = finished.result
    assert "only 16 crops" in finished.log
    entry = result.bundle.entry("mesh", "mesh.int8.onnx")
    assert (entry.precision, entry.backend, entry.batch) == ("int8", "onnx", "dynamic")
    assert entry.error_mm is not None
    assert entry.error_mm.mean > 0
    assert entry.recipe["crops"] == {"what": "noise", "used": 12, "held_out": 4, "sha256": crops.sha256}
    assert entry.recipe["drift_mm"] == pytest.approx(result.search.drift_mm, rel=0.01)
    assert {block["bits"] for block in entry.recipe["blocks"]} == {8}
    assert result.size_bytes < result.float_bytes
    assert open_bundle(result.bundle.path).manifest == result.bundle.manifest
    with open_session(result.bundle.file("mesh", "mesh.int8.onnx"), device="cpu") as session:
        assert all(np.isfinite(v).all() for v in session(crops.batches(np.arange(3))[0]).values())


@pytest.mark.usefixtures("drifts_1_mm")
def test_weights_of_seven_bits(bundle: Bundle, crops: CropSet) -> None:
    result = calibrate(bundle, crops, "minmax", ANY_MM, weight_bits=7)
    entry = result.bundle.entry("mesh", "mesh.int8.onnx")
    assert entry.recipe["weight_bits"] == 7
    network = onnx.load(result.bundle.file("mesh", "mesh.int8.onnx"))
    weights = [numpy_helper.to_array(t) for t in network.graph.initializer if t.name.endswith(".int8")]
    assert len(weights) > 10
    assert {int(np.abs(codes.astype(int)).max()) for codes in weights} == {63}
    # The forms for CPUs say so too, and open on every processor.
    for build in (build_onnxruntime, *([build_openvino] if importlib.util.find_spec("openvino") else [])):
        made, name, _ = build(result.bundle, Precision.INT8)
        with open_session(made.file("mesh", name), device="cpu") as session:
            assert session.metadata[WEIGHT_BITS] == "7"


@pytest.mark.parametrize(("bits", "precision"), [(6, "int8"), (9, "int8"), (7, "fp8")])
def test_other_bits_are_refused(bundle: Bundle, crops: CropSet, bits: int, precision: str) -> None:
    with pytest.raises(JotrDeployError, match=f"--weight-bits {bits} with --precision {precision}"):
        calibrate(bundle, crops, "minmax", ANY_MM, precision, weight_bits=bits)


@pytest.mark.usefixtures("drifts_1_mm")
def test_calibrated_for_fp8(bundle: Bundle, crops: CropSet) -> None:
    result = calibrate(bundle, crops, "minmax", ANY_MM, "fp8")
    entry = result.bundle.entry("mesh", "mesh.fp8.onnx")
    assert (entry.precision, entry.backend) == ("fp8", "onnx")
    network = onnx.load(result.bundle.file("mesh", "mesh.fp8.onnx"))
    kinds = {tensor.data_type for tensor in network.graph.initializer if tensor.name.endswith((".fp8", ".zero_point"))}
    assert kinds == {onnx.TensorProto.FLOAT8E4M3FN}
    with open_session(result.bundle.file("mesh", "mesh.fp8.onnx"), device="cpu") as session:
        assert all(np.isfinite(v).all() for v in session(crops.batches(np.arange(3))[0]).values())
    assert not check_network(result.bundle, "fp8", "none")


def test_entropy_counts_integers_only(bundle: Bundle, crops: CropSet) -> None:
    with pytest.raises(JotrDeployError, match="--method entropy: it counts the equal steps of integers"):
        calibrate(bundle, crops, "entropy", ANY_MM, "fp8")


def test_same_bytes_and_the_cache_again(calibrated: Bundle, crops: CropSet, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sha256_of(calibrated.file("mesh", "mesh.int8.onnx"))

    def collect(*_: Any) -> Any:
        raise AssertionError("the cache should have answered")

    monkeypatch.setattr(module, "collect", collect)
    every = blocks_of(calibrated)
    assert sha256_of(calibrate(calibrated, crops, blocks=every).bundle.file("mesh", "mesh.int8.onnx")) == first
    with pytest.raises(AssertionError):
        calibrate(calibrated, replace(crops, feeds={**crops.feeds, "joints": crops.feeds["joints"] + 1}), "mse", ANY_MM)


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "another network"])
def test_a_cache_that_does_not_fit_is_made_anew(
    calibrated: Bundle, crops: CropSet, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    searched: list[dict[str, float]] = []

    def search(_: onnx.ModelProto, largest: dict[str, float], *more: Any) -> None:
        searched.append(largest)
        raise JotrDeployError("the ranges are enough", "search no further")

    monkeypatch.setattr(module, "search", search)
    (stored,) = (user_cache() / "calibration").iterdir()
    damaged = {"empty": b"", "text": b"no archive", "truncated": stored.read_bytes()[:-40]}
    for _ in range(2):
        with pytest.raises(JotrDeployError, match="the ranges are enough"):
            calibrate(calibrated, crops)
        if damage == "another network":
            np.savez(stored, tensors=np.array(["x"]), largest=np.ones(1), counts=np.ones((1, 2048), np.int64))
        else:
            stored.write_bytes(damaged[damage])
    assert searched[0] == searched[1]
    assert len(searched[0]) > 1


@pytest.mark.parametrize("hindrance", ["a file in its place", "no home"])
def test_without_a_cache_ranges_are_collected_every_time(
    calibrated: Bundle, crops: CropSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hindrance: str
) -> None:
    if hindrance == "no home":

        def no_home() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", no_home)
    else:
        (tmp_path / "taken").write_text("in the way")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "taken"))
    first, every = sha256_of(calibrated.file("mesh", "mesh.int8.onnx")), blocks_of(calibrated)
    assert sha256_of(calibrate(calibrated, crops, blocks=every).bundle.file("mesh", "mesh.int8.onnx")) == first


def test_the_blocks_of_another_bundle(
    finished: Finished, calibrated: Bundle, crops: CropSet, cli: Callable[..., Any], tmp_path: Path
) -> None:
    """A budget gives blocks back; the placement that it left is taken again, over any budget."""
    every, kept = finished.result, blocks_of(calibrated)[1:]
    some = calibrate(calibrated, crops, "mse", 0.0, blocks=kept)
    assert sorted(blocks_of(some.bundle)) == sorted(some.search.chosen) == sorted(kept)
    assert some.bundle.entry("mesh", "mesh.int8.onnx").recipe["budget_mm"] is None
    assert some.search.all_mm == every.search.drift_mm != some.search.drift_mm
    again = cli(
        "calibrate", calibrated.path, "--synthetic", 8, "--placement", some.bundle.path, "-o", tmp_path / "copy"
    )
    assert again.code == 0, again.err
    assert sorted(blocks_of(open_bundle(tmp_path / "copy"))) == sorted(kept)


def test_blocks_that_are_not_there(tiny_bundle: Path, calibrated: Bundle, crops: CropSet) -> None:
    with pytest.raises(BundleError, match=r"--placement: backbone\.layer9\.0 is no block of this network"):
        calibrate(calibrated, crops, "mse", blocks=["backbone.layer1.0", "backbone.layer9.0"])
    with pytest.raises(BundleError, match="no network in it is calibrated for int8"):
        blocks_of(open_bundle(tiny_bundle))
    manifest = calibrated.manifest
    for recipe in ({}, {"blocks": [{"name": "backbone.conv1", "bits": 32}]}, {"blocks": [1]}):
        entry = calibrated.entry("mesh", "mesh.int8.onnx").model_copy(update={"recipe": recipe})
        files = (*(e for e in manifest.files if e.name != entry.name), entry)
        with pytest.raises(BundleError, match=r"its manifest names no block of mesh\.int8\.onnx that is in eight bits"):
            blocks_of(replace(calibrated, manifest=manifest.model_copy(update={"files": files})))


def test_too_few_crops(bundle: Bundle, crops: CropSet) -> None:
    few = CropSet(crops.batches(np.arange(7))[0], "noise")
    with pytest.raises(JotrDeployError, match="noise: 7 crops are too few"):
        calibrate(bundle, few)
    assert not any(entry.precision == "int8" for entry in open_bundle(bundle.path).manifest.files)


@pytest.mark.usefixtures("drifts_1_mm")
def test_a_budget_that_nothing_meets_leaves_the_bundle_alone(bundle: Bundle, crops: CropSet) -> None:
    with pytest.raises(JotrDeployError, match="no block fits into 1e-06 mm"):
        calibrate(bundle, crops, budget_mm=1e-6)
    assert not (bundle.path / "mesh.int8.onnx").exists()


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("drifts_1_mm")
def test_command(bundle: Bundle, cli: Callable[..., Any], photos: Path) -> None:
    for number in range(11, 20):
        shutil.copy(photos / "1.png", photos / f"{number}.png")
    result = cli("calibrate", bundle.path, "--images", photos, "--budget-mm", ANY_MM)
    assert result.code == 0, result.err
    assert "skipped 1 picture that cannot be read: 2.png" in result.err
    assert "backbone.layer1.0" in result.out
    assert f"done {bundle.path}/mesh.int8.onnx" in result.out
    assert "jotr-deploy eval" in result.out


@pytest.mark.usefixtures("drifts_1_mm")
def test_command_as_json(bundle: Bundle, cli: Callable[..., Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    result = cli("calibrate", bundle.path, "--synthetic", 8, "--budget-mm", ANY_MM, "-o", copy, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["crops"], found["held_out"], found["skipped"]) == (6, 2, [])
    assert (copy / "mesh.int8.onnx").is_file()
    assert not (bundle.path / "mesh.int8.onnx").exists()
    for backend in ("onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])):
        built = cli("build-engine", copy, "--backend", backend, "--precision", "int8", "--json")
        if backend == "openvino" and sums_saturate():
            assert built.code == 2
            assert "clip sums on this processor" in built.err
            assert not (copy / "mesh.int8.openvino.onnx").exists()
            continue
        assert built.code == 0, built.err
        assert json.loads(built.out)["file"] == f"mesh.int8.{backend}.onnx"
    assert cli("build-engine", copy, "--precision", "int8", "--check-only").code == 0


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        ((), "calibrate needs either pictures or synthetic scenes"),
        (("--synthetic", 8, "--images", "x"), "calibrate needs either pictures or synthetic scenes"),
        (("--synthetic", 8, "--crops", 8), "--synthetic and --crops are both given"),
        (("--synthetic", 8, "--placement", "b", "--budget-mm", 4), "--placement and --budget-mm are both given"),
        (("--synthetic", 8, "--placement", "nowhere"), "nowhere: no such folder"),
        (("--synthetic", 8, "--precision", "fp4"), "--precision: 'fp4' is not known"),
        (("--synthetic", 8, "--method", "best"), "--method: 'best' is not known"),
        (("--images", "nowhere"), "nowhere: no such file or folder"),
        (("--keypoints", "nowhere/joints.json"), "nowhere: no such file or folder"),
        (("--synthetic", 1), "synthetic scenes of seed 3000: 1 crops are too few"),
    ],
)
def test_refused(bundle: Bundle, cli: Callable[..., Any], arguments: tuple[Any, ...], cause: str) -> None:
    result = cli("calibrate", bundle.path, *arguments)
    assert result.code == 2
    assert cause in result.err


def test_engines_of_a_bundle_that_was_never_calibrated(bundle: Bundle, cli: Callable[..., Any]) -> None:
    for arguments in (("--backend", "onnxruntime"), ("--check-only",)):
        result = cli("build-engine", bundle.path, "--precision", "int8", *arguments)
        assert result.code == 2
        assert "no network in it is calibrated" in result.err
        assert f"jotr-deploy calibrate {bundle.path} --synthetic 256" in result.err


def test_a_bundle_without_an_fp32_network(bundle: Bundle, crops: CropSet) -> None:
    (bundle.path / "mesh.onnx").unlink()
    with pytest.raises(BundleError, match=r"mesh\.onnx is listed in the manifest but missing"):
        calibrate(bundle, crops)


def test_a_network_without_a_body(bundle: Bundle, crops: CropSet) -> None:
    def write(path: Path) -> FileEntry:
        model = onnx.load(bundle.path / "mesh.onnx")
        bare = [value for value in model.graph.output if value.name in ("joints_img", "pose", "betas", "cam")]
        del model.graph.output[:]
        model.graph.output.extend(bare)
        onnx.save(model, path)
        return bundle.entry("mesh")

    bare = replace_file(bundle, "mesh.onnx", write)
    with pytest.raises(BundleError, match="exported with --no-body, no drift can be measured"):
        calibrate(bare, crops)
