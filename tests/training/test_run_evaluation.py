"""Evaluations during a run: they disturb nothing, choose the best weights, end a run, and survive a resume."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from launch import in_two, scalars
from toy import Toy, interrupt_at, toy_config

from jotr_deploy.training.curves import Curve, Curves, picture, read_rows
from jotr_deploy.training.held_out import Figure
from jotr_deploy.training.loop import Fitted, fit
from jotr_deploy.training.run_config import Evaluation, TrainingError

pytestmark = pytest.mark.slow

ERROR = Figure("error", "")


def evaluated(every: int = 4, **options: Any) -> dict[str, Any]:
    return {"evaluation": Evaluation(every=every, seed=9, **options)}


def held_out(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_rows(run) if "held_out" in row]


def weights(run: Path, name: str = "weights.pt") -> dict[str, torch.Tensor]:
    return torch.load(run / name, weights_only=True)


def require_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluations_change_no_bit_of_the_training(tmp_path: Path, precision: str) -> None:
    """Of a network with dropout and batch norms."""
    settings = {"precision": precision, "schedule": "cosine"}
    fit(Toy(), toy_config(**settings), tmp_path / "off")
    fit(Toy(), toy_config(**settings, **evaluated(every=3)), tmp_path / "on")
    require_same(weights(tmp_path / "on"), weights(tmp_path / "off"))
    states = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)["optimizer"] for run in ("on", "off")]
    assert str(states[0]) == str(states[1])
    assert [row["step"] for row in held_out(tmp_path / "on")] == [0, 3, 6, 9, 12]
    assert held_out(tmp_path / "off") == []
    assert not (tmp_path / "off" / "best.pt").exists()


@pytest.mark.parametrize("figure", [None, "error", "share"])
def test_the_best_weights_are_those_of_the_best_step(tmp_path: Path, figure: str | None) -> None:
    fitted = fit(Toy(), toy_config(lr=0.05, **evaluated(every=1, figure=figure)), tmp_path / "run")
    rows, name = held_out(tmp_path / "run"), figure or "error"
    values = [row["held_out"][name] for row in rows]
    best = int(np.argmax(values) if name == "share" else np.argmin(values))  # the first of equals
    assert (fitted.best.step, fitted.best.value) == (rows[best]["step"], values[best])
    assert 0 < best < len(rows) - 1
    assert [row["step"] for row in rows if row["best"]][-1] == best
    fit(Toy(), toy_config(lr=0.05, steps=best), tmp_path / "until")
    require_same(weights(tmp_path / "run", "best.pt"), weights(tmp_path / "until"))


@pytest.mark.parametrize("stopped", [0, 3, 4, 11])  # after one more step; 3 and 11 owe an evaluation
@pytest.mark.parametrize("patience", [None, 2])
def test_resumed_to_the_bit(tmp_path: Path, stopped: int, patience: int | None) -> None:
    config = toy_config(lr=0.05, seed=5, **evaluated(patience=patience))
    whole = fit(Toy(), config, tmp_path / "whole")
    part = fit(Toy(interrupt_at(stopped, signal.SIGTERM)), config, tmp_path / "parts")
    assert part.step == min(stopped + 1, whole.step)
    torch.manual_seed(99)
    assert fit(Toy(), config, tmp_path / "parts", resume=True) == whole
    assert held_out(tmp_path / "parts") == held_out(tmp_path / "whole")
    for name in ("weights.pt", "best.pt"):
        require_same(weights(tmp_path / "parts", name), weights(tmp_path / "whole", name))
    states = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("parts", "whole")]
    assert states[0]["evaluation"] == states[1]["evaluation"]


def test_patience_ends_a_run(tmp_path: Path) -> None:
    """It keeps both weights, says that it is finished, and stays so."""
    config = toy_config(steps=400, lr=0.05, **evaluated(every=2, patience=3))
    fitted = fit(Toy(), config, tmp_path)
    rows = held_out(tmp_path)
    assert fitted == Fitted(fitted.best.step + 6, True, fitted.best)
    assert rows[-1]["step"] == fitted.step < 400
    assert [row["best"] for row in rows[-3:]] == [False] * 3
    again = Toy()
    assert fit(again, config, tmp_path, resume=True) == fitted
    assert again.seen == []
    assert held_out(tmp_path) == rows


def test_a_killed_run_repeats_no_line(tmp_path: Path) -> None:
    """Lines after the checkpoint are dropped, also one that was cut off; the checkpoint of an evaluation is its own."""
    config = toy_config(**evaluated())
    fit(Toy(interrupt_at(5, signal.SIGTERM)), config, tmp_path)
    with (tmp_path / "curves.jsonl").open("a") as file:
        file.write('{"step": 7, "training": {"loss": 1.0}}\n{"step": 8, "held_o')
    fit(Toy(), config, tmp_path, resume=True)
    assert [row["step"] for row in held_out(tmp_path)] == [0, 4, 8, 12]
    assert 7 not in [row["step"] for row in read_rows(tmp_path)]
    assert all(json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines())


def test_figures_do_not_depend_on_batch_or_processes(tmp_path: Path) -> None:
    """Two processes share ten samples in batches of three; and their training is the same with evaluations."""
    for batch in (3, 4, 16):
        fit(Toy(), toy_config(steps=1, batch=batch, **evaluated(every=1)), tmp_path / str(batch))
    in_two(tmp_path, 3, 0.0, "toy", "off", "on")
    starts = [held_out(tmp_path / run)[0]["held_out"] for run in ("3", "4", "16", "run-2-0.0-on")]
    assert starts[0]["error"] == pytest.approx(starts[1]["error"], rel=1e-6)
    assert [start["share"] for start in starts] == [starts[0]["share"]] * 4
    assert starts[3] == starts[0]  # the same batches, so the same bits
    require_same(weights(tmp_path / "run-2-0.0-on"), weights(tmp_path / "run-2-0.0-off"))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"figure": "beauty"}, "evaluation.figure: the task toy has no 'beauty'"),
        ({"samples": 1}, "evaluation at step 0: error is not a number over 1 samples"),
    ],
)
def test_refusals(tmp_path: Path, options: dict[str, Any], cause: str) -> None:
    task = Toy()
    if "samples" in options:
        next(task.model.parameters()).data.fill_(torch.nan)
    with pytest.raises(TrainingError) as error:
        fit(task, toy_config(**evaluated(**options)), tmp_path / "run")
    assert error.value.cause == cause
    assert not (tmp_path / "run" / "best.pt").exists()


def test_resuming_with_another_evaluation(tmp_path: Path) -> None:
    fit(Toy(interrupt_at(1, signal.SIGTERM)), toy_config(**evaluated()), tmp_path)
    with pytest.raises(TrainingError, match=r"\(evaluation\.every 4 there, 5 here\)"):
        fit(Toy(), toy_config(**evaluated(every=5)), tmp_path, resume=True)


def test_what_is_shown(tmp_path: Path) -> None:
    """The progress line has the best figure, TensorBoard every one, the picture a panel each."""
    lines: list[str] = []
    fit(Toy(), toy_config(**evaluated()), tmp_path, progress=lambda text, *_: lines.append(text))
    assert lines[0] == "evaluating"
    rows = held_out(tmp_path)
    newest, best = rows[-1]["held_out"]["error"], [row for row in rows if row["best"]][-1]
    also = "" if rows[-1]["best"] else f" (best {best['held_out']['error']:.4g} at {best['step']})"
    assert lines[-1].endswith(f" samples/s, held-out {ERROR.text(newest)}{also}")
    np.testing.assert_allclose(scalars(tmp_path, "held_out/error"), [r["held_out"]["error"] for r in rows], rtol=1e-6)
    assert cv2.imread(str(tmp_path / "curves.png")).shape == (3 * 240, 720, 3)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


# ── curves ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0, 2.0], [1e6, 3.0, 2.5, 2.6], [-1.0, 5.0], list(range(100))])
def test_a_picture_of_any_curve(values: list[float]) -> None:
    """The line stays between the axis and the title, whatever the values."""
    steps = list(range(20, 20 * len(values) + 20, 20))
    panel = picture([Curve("loss", steps, values, best=steps[-1])])
    line = (panel == (170, 100, 40)).all(-1)
    assert line.any()
    rows = np.flatnonzero(line.any(1))
    assert rows.min() > 25
    assert rows.max() < 240 - 30


def test_nothing_is_drawn_of_nothing_and_what_is_no_number_is_null(tmp_path: Path) -> None:
    curves = Curves(tmp_path, None, {"error": ERROR}, "error")
    curves.draw()
    assert {path.name for path in tmp_path.iterdir()} == {"curves.jsonl"}
    curves.add(20, "training", {"loss": 2.0, "error_px": float("nan")})
    curves.draw()
    assert read_rows(tmp_path) == [{"step": 20, "training": {"loss": 2.0, "error_px": None}}]
    assert (tmp_path / "curves.png").stat().st_size > 1000
    (tmp_path / "curves.jsonl").unlink()
    assert read_rows(tmp_path) == []
