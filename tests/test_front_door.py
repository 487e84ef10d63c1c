"""Names that `jotr_deploy` promises, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import jotr_deploy as jd

PROMISED = {
    *("load", "Model", "People", "Person", "Detections", "JotrDeployError"),
    *("export_bundle", "build_engine", "evaluate"),
}
HEAVY = ("torch", "onnxruntime", "cv2", "onnx", "openvino", "numpy", "pydantic", "rich", "typer")


def test_the_promised_names_are_there() -> None:
    assert set(jd.__all__) == PROMISED
    assert set(dir(jd)) >= PROMISED
    for name in PROMISED:
        assert getattr(jd, name).__module__.startswith("jotr_deploy."), name
    assert not callable(__import__("jotr_deploy.export").export)  # a package, not a function


def test_importing_loads_nothing_heavy() -> None:
    code = (
        f"import json, sys, jotr_deploy; dir(jotr_deploy); print(json.dumps(sorted({{*{HEAVY}}} & sys.modules.keys())))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(json.loads(result.stdout)).isdisjoint(HEAVY)


def test_another_name_is_missed() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        jd.nothing  # noqa: B018


def test_the_old_names_stay() -> None:
    from jotr_deploy.bundle import open_bundle, starter_path
    from jotr_deploy.visual.result_files import read_people

    assert open_bundle(Path("starter")).path == starter_path()
    assert callable(read_people)


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"protocol": "h36m"}, "--protocol: 'h36m' is not known"),
        ({"root": "sets"}, "--protocol synthetic does not use --root"),
        ({"protocol": "3dpw", "pixels": True}, "--protocol 3dpw does not use --pixels"),
        ({"protocol": "3dpw", "scenes": 3}, "--protocol 3dpw does not use --scenes"),
        ({"protocol": "3dpw"}, "--protocol 3dpw needs --root"),
        ({"protocol": "3dpw", "root": "sets", "smpl": "smpl"}, "--protocol 3dpw needs --h36m-regressor"),
    ],
)
def test_evaluate_refuses_what_a_protocol_does_not_use(options: dict[str, object], cause: str) -> None:
    with pytest.raises(jd.JotrDeployError) as refusal:
        jd.evaluate("starter", **options)
    assert refusal.value.cause == cause


def test_only_tensorrt_has_its_options(tmp_path: Path) -> None:
    with pytest.raises(jd.JotrDeployError, match="plugin: only for TensorRT"):
        jd.build_engine("starter", backend="onnxruntime", output=tmp_path / "copy", plugin="aot")
    assert not (tmp_path / "copy").exists()
