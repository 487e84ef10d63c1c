"""Learning curves of a run: a line of JSON for every window of steps and every evaluation, and a picture of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from jotr_deploy.support.aliases import Array
from jotr_deploy.support.writing import output_errors, written_aside
from jotr_deploy.training.held_out import Figure
from jotr_deploy.training.run_directory import CURVES, CURVES_PICTURE

TRAINING, HELD_OUT = "training", "held_out"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 720, 240, 70, 36, 34, 30  # of a panel, pixels
_INK, _GRID, _LINE, _BEST = (60, 60, 60), (228, 228, 228), (170, 100, 40), (40, 60, 210)  # BGR
_BEGINNING = 0.05  # share of the steps whose values may leave the panel at the top


class Curve(NamedTuple):
    """Values over steps."""

    title: str
    steps: list[int]
    values: list[float]
    best: int | None = None  # step to mark


class Curves:
    """The curves of a run directory.

    Args:
        directory: of the run.
        upto: step to continue from; later lines, written after the checkpoint, are dropped. None starts anew.
        figures: of the held-out samples.
        deciding: name of the one that chooses the best weights.
    """

    def __init__(self, directory: Path, upto: int | None, figures: Mapping[str, Figure], deciding: str | None) -> None:
        self._directory, self._figures, self._deciding = directory, figures, deciding
        self._rows = [] if upto is None else [row for row in read_rows(directory) if row["step"] <= upto]
        with written_aside(directory / CURVES) as aside:
            aside.write_text("".join(json.dumps(row) + "\n" for row in self._rows), encoding="utf-8")

    def add(self, step: int, kind: str, values: Mapping[str, float], **more: Any) -> None:
        """Append a line; what is not a number becomes null."""
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        row = {"step": step, kind: plain, **more}
        self._rows.append(row)
        with output_errors(self._directory / CURVES), (self._directory / CURVES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def draw(self) -> None:
        """Replace the picture; nothing is drawn before the first line."""
        curves = [_curve(self._rows, TRAINING, "loss", "loss")]
        for name, figure in self._figures.items():
            title = f"held-out {figure.title}" + (f", {figure.unit}" if figure.unit else "")
            curves.append(_curve(self._rows, HELD_OUT, name, title, marked=name == self._deciding))
        curves = [curve for curve in curves if curve.steps]
        if curves:
            with written_aside(self._directory / CURVES_PICTURE) as aside:
                aside.write_bytes(cv2.imencode(".png", picture(curves))[1].tobytes())


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """Lines of a run, in order; one that was cut off when the process was killed is left out."""
    path, rows = directory / CURVES, []
    if path.exists():
        with output_errors(path):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def _curve(rows: Sequence[dict[str, Any]], kind: str, name: str, title: str, marked: bool = False) -> Curve:
    points = [
        (row["step"], row[kind][name], row.get("best")) for row in rows if row.get(kind, {}).get(name) is not None
    ]
    best = max((step for step, _, best in points if best), default=None) if marked else None
    return Curve(title, [step for step, *_ in points], [value for _, value, _ in points], best)


def picture(curves: Sequence[Curve]) -> Array:
    """(H, W, 3) uint8 BGR: one panel a curve over common steps, the best step marked. No axis starts at zero."""
    last = max(1, max(step for curve in curves for step in curve.steps))
    return np.concatenate([_panel(curve, last) for curve in curves])


def _panel(curve: Curve, last: int) -> Array:
    image = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    low, high = _range(curve, last)

    def at(step: float, value: float) -> tuple[int, int]:
        x = _LEFT + step / last * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _BOTTOM - _TOP)
        return round(x), round(max(y, -1000.0))

    def text(words: str, place: tuple[int, int]) -> None:
        cv2.putText(image, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)

    for share in range(5):
        step, value = last * share // 4, low + (high - low) * share / 4
        cv2.line(image, at(0, value), at(last, value), _GRID, 1)
        text(f"{value:.4g}", (6, at(0, value)[1] + 4))
        text(str(step), (at(step, low)[0] - 10, _HEIGHT - _BOTTOM + 18))
    title = f"{curve.title}: {curve.values[-1]:.4g} at step {curve.steps[-1]}"
    if curve.best is not None:
        value = curve.values[curve.steps.index(curve.best)]
        title += f", best {value:.4g} at step {curve.best}"
    inside = image[_TOP - 4 :]  # what is higher leaves the panel
    points = np.array([at(step, value) for step, value in zip(curve.steps, curve.values, strict=True)], np.int32)
    points[:, 1] -= _TOP - 4
    cv2.polylines(inside, [points], False, _LINE, 1, cv2.LINE_AA)
    for point in points if len(points) <= 40 else points[-1:]:
        cv2.circle(inside, point.tolist(), 2, _LINE, -1, cv2.LINE_AA)
    if curve.best is not None:
        cv2.circle(image, at(curve.best, value), 5, _BEST, 2, cv2.LINE_AA)
    text(title, (_LEFT, 18))
    return image


def _range(curve: Curve, last: int) -> tuple[float, float]:
    """Lowest and highest value of a panel: the first steps, much higher than the rest, do not flatten it."""
    later = [v for s, v in zip(curve.steps, curve.values, strict=True) if s > _BEGINNING * last] or curve.values
    low, high = min(curve.values), max(later)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
