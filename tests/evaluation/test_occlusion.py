"""From the errors of an attack to its figures, its files and its table."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from jotr_deploy.errors import JotrDeployError, OutputError, SourceError
from jotr_deploy.evaluation.attack import Attacked
from jotr_deploy.evaluation.error_statistics import Figures
from jotr_deploy.evaluation.occlusion import Occlusion, OcclusionOptions, occlusion, prepare
from jotr_deploy.evaluation.occlusion_files import finish_attack, open_attack, write_occlusion
from jotr_deploy.evaluation.occlusion_table import occlusion_report
from jotr_deploy.support.aliases import Array

OPTIONS = OcclusionOptions(sizes=(80,), stride=120)  # 3 places along each axis


def files(*names: str, reference: str | None = None) -> Any:
    """Open files without networks."""
    opened = [
        SimpleNamespace(
            entry=SimpleNamespace(name=name, precision=f"precision of {name}"),
            device="cpu",
            network=SimpleNamespace(crop_side=224),
        )
        for name in names
    ]
    first = next((file for file in opened if file.entry.name == reference), None)
    return SimpleNamespace(measured=opened[0], reference=first, all=tuple(opened), fit=None)


def attack_that_found(opened: Any, found: list[Attacked], options: OcclusionOptions = OPTIONS) -> Any:
    """An attack that is over."""
    attack = prepare(options, opened, seed=3)
    attack.keys = [f"person {number}" for number in range(len(found[0].clean_mm))]
    attack.finish = lambda: found  # type: ignore[method-assign]
    return attack


def errors(*mpjpe: float) -> Array:
    """(N, 3) of MPJPE; PA-MPJPE is half of it, PVE twice."""
    values = np.array(mpjpe, np.float64)
    return np.stack([values, values / 2, 2 * values], -1)


def result(opened: Any, *found: Attacked, options: OcclusionOptions = OPTIONS) -> Occlusion:
    return occlusion(attack_that_found(opened, list(found), options), opened, options, 3)


def places(**largest: float) -> Array:
    """Four places with 20 mm, but for `p0=..` to `p3=..`."""
    values = [20.0] * 4
    for name, value in largest.items():
        values[int(name[1])] = value
    return errors(*values)


def grid_of_four(*people: Array) -> tuple[Array, ...]:
    return (np.stack(people),)


FIRST = Attacked(errors(10, 20), grid_of_four(places(p1=60), places(p2=100)))
SECOND = Attacked(errors(11, 21), grid_of_four(places(p1=50, p3=80), places(p2=70)))


def test_three_places_on_an_axis_of_which_one_is_beyond_the_crop() -> None:
    assert prepare(OPTIONS, files("a"), 0).grids[0].count == 2


def test_figures_by_hand() -> None:
    (size,) = result(files("mesh.onnx"), FIRST).sizes
    (row,) = size.files
    assert (size.size, size.stride, size.side_px, size.step_px, size.places_each_way) == (80, 120, 80, 120, 2)
    assert row.clean == Figures(2, 15, 7.5, 30)
    assert row.grid_mean == Figures(2, 35, 17.5, 70)  # (30 + 40) / 2
    assert row.worst == Figures(2, 80, 40, 160)
    assert row.worse_by == round(80 / 15 - 1, 3)
    assert row.map_mm == ((20, 40), (60, 20))
    assert (row.at_reference_worst, row.worst_change_mm, row.interval_mm) == (None, None, None)
    assert (row.not_finite, row.nothing_counted) == (0, 0)


def test_the_other_metrics_are_those_of_the_place_with_the_largest_mpjpe() -> None:
    patched = errors(20, 60, 20, 20)
    patched[0, 1:] = 900, 900
    row = result(files("a"), Attacked(errors(10), (patched[None],))).sizes[0].files[0]
    assert row.worst == Figures(1, 60, 30, 120)


def test_every_file_by_its_own_worst_places_and_by_those_of_the_reference() -> None:
    found = result(files("mesh.onnx", "int8", reference="mesh.onnx"), FIRST, SECOND)
    assert found.reference == "mesh.onnx"
    same, row = found.sizes[0].files
    assert row.worst == Figures(2, 75, 37.5, 150)  # 80 and 70
    assert row.at_reference_worst == Figures(2, 60, 30, 120)  # 50 and 70
    assert row.worst_change_mm == -5  # 80 - 60 and 70 - 100
    assert row.interval_mm is not None
    assert row.interval_mm == (-30, 20)
    assert (same.at_reference_worst, same.worst_change_mm, same.interval_mm) == (same.worst, 0, (0, 0))


def test_the_manifest_names_the_worst_places() -> None:
    opened = files("mesh.onnx", "int8", reference="mesh.onnx")
    attack = attack_that_found(opened, [FIRST, SECOND])
    worst = occlusion(attack, opened, OPTIONS, 3).worst
    assert [(w.person, w.file, w.row, w.column, w.clean_mm, w.error_mm) for w in worst] == [
        ("person 0", "mesh.onnx", 0, 1, 10, 60),
        ("person 1", "mesh.onnx", 1, 0, 20, 100),
        ("person 0", "int8", 1, 1, 11, 80),
        ("person 1", "int8", 1, 0, 21, 70),
    ]
    window = attack.window(1, attack.grids[0], 2)
    assert (worst[1].texture, worst[1].texture_xy_px) == (
        attack.textures.names[window.picture], (window.x_px, window.y_px)
    )  # fmt: skip
    assert worst[3].texture_xy_px == worst[1].texture_xy_px  # the same patch for all files


def test_who_cannot_be_measured_is_left_out() -> None:
    nowhere = np.full((4, 3), np.nan)
    some = places(p1=60)
    some[0] = np.nan
    broken = places(p3=np.inf)
    clean = errors(10, 10, 10, np.nan, np.inf)
    found = Attacked(clean, (np.stack([some, broken, nowhere, some, some]),))
    got = result(files("a"), found)
    (row,) = got.sizes[0].files
    assert (row.clean, row.worst) == (Figures(1, 10, 5, 20), Figures(1, 60, 30, 120))
    assert row.grid_mean.mpjpe_mm == round((60 + 20 + 20) / 3, 3)
    assert row.map_mm == ((None, 60), (20, 20))
    assert (row.not_finite, row.nothing_counted) == (2, 2)
    assert [place.person for place in got.worst] == ["person 0"]
    said = text(got)
    assert "warning a, patch 80: numbers of 2 people are not finite, they are left out" in said
    assert "warning a, patch 80: no joint of 2 people counts, they are left out" in said


def test_nobody() -> None:
    nobody = Attacked(np.zeros((0, 3)), (np.zeros((0, 4, 3)),))
    got = result(files("a", "b", reference="a"), nobody, nobody)
    for row in got.sizes[0].files:
        assert row.clean == row.grid_mean == row.worst == row.at_reference_worst == Figures(0, None, None, None)
        assert (row.worse_by, row.worst_change_mm, row.interval_mm) == (None, None, None)
        assert row.map_mm == ((None, None), (None, None))
    assert got.worst == ()
    assert "a 80 - - - - - -" in text(got)


def text(found: Occlusion, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(occlusion_report(found))
    return " ".join(capture.get().split())


def test_the_table() -> None:
    said = text(result(files("mesh.onnx", "int8", reference="mesh.onnx"), FIRST, SECOND))
    assert "Under a patch of so many px of a crop of 224, 2 people, millimetres" in said
    assert "mesh.onnx 80 15.0 35.0 80.0 +433% 40.0 160.0" in said
    assert "int8 80 60.0 75.0 -5.0 -30.0 .. +20.0" in said
    assert "withheld from the network" in said
    alone = text(result(files("mesh.onnx"), FIRST, options=replace(OPTIONS, keep_joints=True)))
    assert "given to the network as without the patch" in alone
    assert "change from" not in alone


def test_files(tmp_path: Path) -> None:
    opened = files("mesh.onnx", "int8", reference="mesh.onnx")
    attack = attack_that_found(opened, [FIRST, SECOND])
    found = write_occlusion(occlusion(attack, opened, OPTIONS, 3), attack, tmp_path)
    assert found.written == ("occlusion.json", "occlusion_80_mesh.onnx.png", "occlusion_80_int8.png")
    assert {path.name for path in tmp_path.iterdir()} == set(found.written)
    assert json.loads((tmp_path / "occlusion.json").read_text()) == json.loads(json.dumps(asdict(found)))
    first, second = (cv2.imread(str(tmp_path / name)) for name in found.written[1:])
    assert first.shape == second.shape
    assert (first != second).any()
    assert (first[60:, -40:] == second[60:, -40:]).all()  # one scale of colours


def test_an_output_that_cannot_be_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    options = replace(OPTIONS, output=tmp_path / "file" / "folder")
    with pytest.raises(OutputError), open_attack(options, files("a"), 0):
        pytest.fail("the work began")


def test_a_folder_that_stays_empty_goes_again(tmp_path: Path) -> None:
    with open_attack(replace(OPTIONS, output=tmp_path / "new" / "folder"), files("a"), 0):
        assert (tmp_path / "new" / "folder").is_dir()
    assert not (tmp_path / "new").exists()


def test_no_attack_is_asked_for() -> None:
    with open_attack(None, files("a"), 0) as attack:
        assert attack is None
        assert finish_attack(attack, None, files("a"), 0) is None


def test_options_are_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(JotrDeployError, match="--stride 0: not from 1 to 224"):
        prepare(replace(OPTIONS, stride=0), files("a"), 0)
    with pytest.raises(SourceError, match="not a folder of textures"):
        prepare(replace(OPTIONS, textures=tmp_path / "none"), files("a"), 0)


def test_the_start_of_a_fit_stands_beside_it_with_worst_places_of_its_own() -> None:
    opened = files("mesh.onnx", "int8", reference="mesh.onnx")
    before = replace(FIRST, clean_mm=errors(30, 40)), replace(SECOND, clean_mm=errors(31, 41))
    fitted = [
        Attacked(errors(5, 6), grid_of_four(places(p0=40), places(p3=50)), before[0]),
        Attacked(errors(6, 7), grid_of_four(places(p0=45), places(p3=45)), before[1]),
    ]
    attack = attack_that_found(opened, fitted)
    found = occlusion(attack, opened, OPTIONS, 3)
    first, second = found.sizes[0].files
    assert first.before_fit is not None
    assert second.before_fit is not None
    assert first.worst == Figures(2, 45, 22.5, 90)
    assert first.before_fit.worst == Figures(2, 80, 40, 160)
    assert (first.clean.mpjpe_mm, first.before_fit.clean.mpjpe_mm) == (5.5, 35)
    assert first.before_fit.before_fit is first.before_fit.at_start_worst is None
    assert first.at_start_worst == Figures(2, 20, 10, 40)  # its starts are worst at places 1 and 2
    # Each answer against the same answer of fp32.
    assert (second.worst_change_mm, second.before_fit.worst_change_mm) == (0, -5)
    assert second.before_fit.at_reference_worst == Figures(2, 60, 30, 120)
    assert [(w.file, w.row, w.column, w.error_mm) for w in found.worst] == [
        ("mesh.onnx", 0, 0, 40), ("mesh.onnx", 1, 1, 50), ("int8", 0, 0, 45), ("int8", 1, 1, 45),
    ]  # fmt: skip
    assert [(w.file, w.row, w.column, w.error_mm) for w in found.worst_before_fit] == [
        ("mesh.onnx", 0, 1, 60), ("mesh.onnx", 1, 0, 100), ("int8", 1, 1, 80), ("int8", 1, 0, 70),
    ]  # fmt: skip
    said = text(found)
    assert "Before and after the fit, each at its own worst places, millimetres" in said
    assert "file patch clean fitted worst fitted PA-MPJPE fitted" in said
    assert "mesh.onnx 80 35.0 5.5 80.0 45.0 40.0 22.5" in said


def test_without_a_fit_there_is_no_start() -> None:
    found = result(files("mesh.onnx"), FIRST)
    assert found.sizes[0].files[0].before_fit is None
    assert found.worst_before_fit == ()
    assert "fitted" not in text(found)
