import importlib.util
import json
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnx.parser
import pytest
from tiny import TINY

from jotr_deploy.bundle import FileEntry, Manifest, open_bundle, sha256_of, write_manifest
from jotr_deploy.errors import BundleError, SessionError
from jotr_deploy.profiling import benchmark as module
from jotr_deploy.profiling import interleave
from jotr_deploy.profiling.benchmark import bench
from jotr_deploy.profiling.cold import ColdStart, cold_start
from jotr_deploy.profiling.networks import open_networks, without_body
from jotr_deploy.profiling.quiet_samples import Judge, Usage
from jotr_deploy.profiling.timed_picture import open_scene
from jotr_deploy.runtime.sessions import open_session

pytestmark = pytest.mark.slow

EAGER = "PyTorch eager"


SHAPES = {
    "joints_img": (15, 3), "pose": (24, 3), "betas": (10,), "cam": (3,),
    "translation": (3,), "joints3d": (30, 3), "joints_proj": (30, 2), "vertices": (6890, 3),
}  # fmt: skip


def mesh_model():
    """The contract of a mesh file, with the mean of the crop in place of a network, spread by a local function."""
    side = TINY.crop_side
    outputs = ", ".join(f"float[{', '.join(map(str, ('batch', *shape)))}] {name}" for name, shape in SHAPES.items())
    spread = "\n".join(
        f"{name} = local.Spread <start = {[-1] + [1] * len(shape)}, shape = {[1, *shape]}> (mean)"
        for name, shape in SHAPES.items()
    )
    return onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 19, "local" : 1]>
        mesh (float[batch, 3, {side}, {side}] image, float[batch, 30, 2] joints, float[batch, 30] joints_mask)
          => ({outputs}) {{
          seen = Mul (joints_mask, joints_mask)
          last = Constant <value_ints = [1]> ()
          used = ReduceMean (seen, last)
          flat = Flatten (image)
          colour = ReduceMean (flat, last)
          mean = Add (colour, used)
          {spread}
        }}
        <opset_import: ["" : 19], domain: "local">
        Spread <start, shape> (value) => (spread) {{
          rows = Constant <value_ints : ints = @start> ()
          wide = Constant <value_ints : ints = @shape> ()
          column = Reshape (value, rows)
          spread = Expand (column, wide)
        }}
    """)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle")
    onnx.save(mesh_model(), path / "mesh.onnx")
    np.save(path / "faces.npy", np.tile(np.arange(3, dtype=np.int32), (13776, 1)))
    entries = [
        FileEntry(role=role, name=name, sha256=sha256_of(path / name), precision=precision)
        for role, name, precision in (("mesh", "mesh.onnx", "fp32"), ("faces", "faces.npy", None))
    ]
    write_manifest(path, Manifest(model=TINY, source_sha256="0", labels=("stand-in body",), files=tuple(entries)))
    return path


@pytest.fixture
def copy(made, tmp_path):
    """A bundle to change: `copy(name, bytes)` adds or replaces a file, in the manifest too."""
    path = tmp_path / "bundle"
    path.mkdir()
    for file in made.iterdir():
        (path / file.name).write_bytes(file.read_bytes())

    def change(name, content, **fields):
        (path / name).write_bytes(content)
        manifest = open_bundle(path).manifest
        entry = FileEntry(role="mesh", name=name, sha256=sha256_of(path / name), **fields)
        files = [file for file in manifest.files if file.name != name]
        write_manifest(path, manifest.model_copy(update={"files": (*files, entry)}))
        return open_bundle(path)

    return change


def judge(others_cores):
    """One who sees so many of two cores taken by others."""
    clock = count()

    def read():
        seconds = float(next(clock))
        return Usage(seconds, others_cores * seconds, 0.0)

    return Judge(read, lambda seconds: None, cores=2)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(interleave, "SAMPLES_AT_LEAST", 3)
    monkeypatch.setattr(module, "Judge", lambda: judge(others_cores=0))
    monkeypatch.setattr(module, "cold_start", lambda name, arguments: ColdStart(1.5, 300_000_000))


@pytest.fixture
def quick(tmp_path):
    """The benchmark on a small picture, as short as it gets."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((80, 60, 3), 90, np.uint8))
    return partial(bench, seconds=0, threads=1, source=tmp_path / "a.png")


def networks(found):
    return {network.name: network for network in found.networks}


def test_everything_is_measured(made, quick):
    pytest.importorskip("torch", reason="pip install '.[export]'")
    steps = []
    found = quick(open_bundle(made), batches=(1, 2), progress=lambda *step: steps.append(step))
    assert list(networks(found)) == ["mesh.onnx", EAGER]
    for network in found.networks:
        assert [row.batch for row in network.batches] == [1, 2]
        for row in network.batches:
            timing = row.timing
            assert timing.kept >= 3
            assert 0 < timing.p10_ms <= timing.p50_ms <= timing.p90_ms <= timing.p99_ms
            assert row.people_per_s == pytest.approx(1000 * row.batch / timing.p50_ms, rel=0.01)
        assert (network.cold_start_s, network.peak_memory_mb, network.device) == (1.5, 300.0, "cpu")
    mesh, eager = networks(found)["mesh.onnx"], networks(found)[EAGER]
    assert [row.speed_up for row in eager.batches] == [1, 1]
    assert mesh.batches[0].speed_up == pytest.approx(
        eager.batches[0].timing.p50_ms / mesh.batches[0].timing.p50_ms, rel=0.01
    )
    assert (mesh.precision, mesh.size_mb) == ("fp32", round((made / "mesh.onnx").stat().st_size / 1e6, 1))
    assert mesh.body_share < 1
    assert eager.body_share is None
    assert [stage.name for stage in found.stages] == ["decode", "crop", "network", "draw"]
    assert sum(stage.share for stage in found.stages) == pytest.approx(1, abs=0.001)
    assert found.labels == open_bundle(made).manifest.labels
    assert found.notes == (f"{EAGER}: the same architecture as written in PyTorch, nothing merged; random weights",)
    assert {"warming up", "measuring", "first cold start", "cold starts"} <= {step for step, _, _ in steps}
    assert all(0 <= done < total for _, done, total in steps)
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    assert found.as_dict()["networks"][0]["batches"][0]["timing"]["p50_ms"] == mesh.batches[0].timing.p50_ms


def test_people_are_found_by_the_networks_of_the_bundle(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no engine was chosen
    found = bench(open_bundle(Path("starter")), batches=(1,), seconds=0, threads=1, eager=False)
    assert [stage.name for stage in found.stages] == ["decode", "detect", "pose", "crop", "network", "draw"]
    assert any("2 people found by the bundle's detector" in line for line in found.timed)
    assert [(network.name, network.engine) for network in found.networks] == [("mesh.onnx", "ONNX Runtime")]


def test_without_pytorch_it_is_left_out(made, monkeypatch, quick):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else find(name, *rest))
    found = quick(open_bundle(made), batches=(1,))
    assert list(networks(found)) == ["mesh.onnx"]
    assert found.networks[0].batches[0].speed_up is None
    assert found.notes == (
        f"{EAGER} left out: PyTorch is not installed (pip install '.[export]' in a clone of jotr-deploy)",
    )


def test_eager_can_be_left_out_without_a_word(made, quick):
    found = quick(open_bundle(made), batches=(1,), eager=False)
    assert list(networks(found)) == ["mesh.onnx"]
    assert found.notes == ()


def test_a_bundle_without_body_draws_nothing(made, copy, tmp_path, quick):
    bundle = copy("mesh.onnx", without_body(made / "mesh.onnx", tmp_path).read_bytes())
    found = quick(bundle, batches=(1,), eager=False)
    assert [stage.name for stage in found.stages] == ["decode", "crop", "network"]
    assert found.networks[0].body_share is None


@pytest.mark.parametrize("body", [True, False])
def test_eager_is_the_network_of_the_bundle(made, copy, tmp_path, body):
    pytest.importorskip("torch", reason="pip install '.[export]'")
    pruned = without_body(made / "mesh.onnx", tmp_path)
    bundle = open_bundle(made) if body else copy("mesh.onnx", pruned.read_bytes())
    with open_networks(bundle, threads=1) as opened, open_scene(None, None, TINY) as scene:
        mesh, eager = (network.call(scene.batch(3)) for network in opened.networks)
    assert {name: (value.shape, value.dtype) for name, value in eager.items()} == {
        name: (value.shape, value.dtype) for name, value in mesh.items()
    }


def test_what_cannot_be_opened_is_left_out(copy, quick):
    bundle = copy("mesh.later.onnx", b"not a network")
    found = quick(bundle, batches=(1,), eager=False)
    assert list(networks(found)) == ["mesh.onnx"]
    (note,) = found.notes
    assert note.startswith(f"mesh.later.onnx left out: {bundle.path / 'mesh.later.onnx'}: not an ONNX model")


def test_nothing_can_be_opened(copy, quick):
    with pytest.raises(SessionError, match="not an ONNX model"):
        quick(copy("mesh.onnx", b"not a network"), batches=(1,))


def test_a_changed_file_is_refused(copy, quick):
    bundle = copy("mesh.onnx", b"as in the manifest")
    (bundle.path / "mesh.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="the file has changed since it was made"):
        quick(bundle, batches=(1,))


def test_a_batch_that_a_file_does_not_take(made, copy, quick):
    fixed = onnx.load(made / "mesh.onnx")
    for value in fixed.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    found = quick(copy("mesh.one.onnx", fixed.SerializeToString()), batches=(1, 2), eager=False)
    one = networks(found)["mesh.one.onnx"]
    assert one.batches[0].timing.kept
    assert one.batches[1].timing is None
    assert networks(found)["mesh.onnx"].batches[1].timing.kept
    (note,) = found.notes
    assert note.startswith("mesh.one.onnx left out at batch 2: mesh.one.onnx: wrong input: ")


def test_a_process_that_fails_is_a_note(made, monkeypatch, quick):
    def fail(name, arguments):
        raise SessionError(f"{name} could not be run", "")

    monkeypatch.setattr(module, "cold_start", fail)
    found = quick(open_bundle(made), batches=(1,), eager=False)
    assert (found.networks[0].cold_start_s, found.networks[0].peak_memory_mb) == (None, None)
    assert found.notes == ("no cold start: mesh.onnx could not be run",)


def test_a_busy_machine_is_said(made, monkeypatch, quick):
    monkeypatch.setattr(module, "Judge", lambda: judge(others_cores=2))
    found = quick(open_bundle(made), batches=(1,), eager=False)
    timing = found.networks[0].batches[0].timing
    assert (timing.kept, timing.dropped, timing.busy) == (5, 0, True)
    assert found.networks[0].batches[0].people_per_s
    assert found.networks[0].body_share is None
    assert {stage.share for stage in found.stages} == {None}
    assert found.warnings == (
        "the rest of the machine was busy nearly all the time during: frame, batch 1, cold. Nothing was dropped "
        "there: these figures are upper bounds, and ratios, which would mean nothing, are left out",
    )


def test_the_network_without_body_is_the_same_to_the_pose(made, tmp_path):
    pruned = without_body(made / "mesh.onnx", tmp_path)
    assert [function.name for function in onnx.load(pruned).functions] == ["Spread"]
    with open_session(made / "mesh.onnx") as whole, open_session(pruned) as part:
        assert list(part.outputs) == ["joints_img", "pose", "betas", "cam"]
        with open_scene(None, None, TINY) as scene:
            expected, found = whole(scene.batch(2)), part(scene.batch(2))
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])


def test_every_network_runs_in_a_fresh_process(made):
    with open_networks(open_bundle(made), threads=1) as opened:
        for network in opened.networks:
            found = cold_start(network.name, network.cold_arguments)
            assert found.seconds > 0
            assert found.peak_bytes > 10e6


def test_eager_uses_the_threads_of_the_engines(made):
    torch = pytest.importorskip("torch", reason="pip install '.[export]'")
    before = torch.get_num_threads()
    with open_networks(open_bundle(made), threads=before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_for_everything_that_is_compared(made, tf32):
    import torch

    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    with open_networks(open_bundle(made), device="cpu", tf32=tf32) as opened:
        assert [switch.allow_tf32 for switch in switches] == [tf32, tf32]
        assert [("--tf32" in network.cold_arguments) for network in opened.networks] == [tf32] * len(opened.networks)
    assert [switch.allow_tf32 for switch in switches] == before


def test_importing_it_does_not_import_pytorch():
    code = (
        "import sys, jotr_deploy.profiling.benchmark, jotr_deploy.profiling.bench_table; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_session_on_a_gpu_tells_its_own_times(made, monkeypatch, quick):
    milliseconds = {"enqueue": 0.5, "gpu": 4.0, "h2d": 0.25, "d2h": 0.125}

    def open_on_gpu(path, **options):
        session = open_session(path, device="cpu")
        monkeypatch.setattr(type(session), "times", milliseconds, raising=False)
        return session

    monkeypatch.setattr("jotr_deploy.profiling.networks.open_session", open_on_gpu)
    found = quick(open_bundle(made), batches=(1, 2), eager=False)
    assert [row.gpu_ms for row in found.networks[0].batches] == [milliseconds, milliseconds]
    assert any(line.startswith("on the GPU: medians") for line in found.timed)


def test_a_session_on_the_cpu_has_no_gpu_times(made, quick):
    found = quick(open_bundle(made), batches=(1,), eager=False)
    assert found.networks[0].batches[0].gpu_ms is None
    assert not any(line.startswith("on the GPU") for line in found.timed)
