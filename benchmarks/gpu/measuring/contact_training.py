"""First contact: the training loop on drawn scenes, in fp32 and in bf16; the network of the publication."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring.report import LeftOut, Report, needs


def measure(
    report: Report, steps: int = 200, batch: int = 32, scenes: int = 96, model: Mapping[str, Any] | None = None
) -> None:
    needs("torch", "numpy", "cv2", "onnx", "pydantic", "accelerate", "tensorboard", "tomli_w")
    curves, took = {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("fp32", "bf16"):
            with report.attempt(f"training in {precision}"):
                if report.seconds_left < took:
                    raise LeftOut(f"no time left: {took:.0f} s in fp32")
                begun = time.perf_counter()
                losses, seconds = trained(Path(folder), precision, steps, batch, scenes, dict(model or {}))
                took = time.perf_counter() - begun
                curves[precision] = losses
                rows_of(report, precision, losses, batch * len(seconds[1:]) / sum(seconds[1:]))
    if len(curves) == 2:
        ends = {precision: mean(losses[-tail(losses) :]) for precision, losses in curves.items()}
        report.value("loss in bf16 over that in fp32 at the end", ends["bf16"] / ends["fp32"], "", 1.5)


def trained(
    folder: Path, precision: str, steps: int, batch: int, scenes: int, model: dict[str, Any]
) -> tuple[list[float], list[float]]:
    """Loss and duration of each step. Scenes are drawn once, so that the processors do not set the pace."""
    import torch
    from accelerate.state import AcceleratorState

    from jotr_deploy.body.vposer import VPoserDecoder
    from jotr_deploy.training.loop import fit
    from jotr_deploy.training.run_config import TrainConfig
    from jotr_deploy.training.tasks.mesh_task import Options, make

    prior = folder / "prior.pt"
    torch.manual_seed(0)
    torch.save(VPoserDecoder().state_dict(), prior)
    task = make(Options.model_validate({"prior": prior, "model": model}), seed=4)
    pool = task.draw(range(scenes))
    task.draw = lambda indices: of_pool(pool, scenes, indices)
    losses: list[Any] = []
    loss_of, times = task.loss, [time.perf_counter()]

    def recorded(values: Mapping[str, Any], step: int) -> tuple[Any, Any]:
        loss, parts = loss_of(values, step)
        losses.append(loss.detach())
        return loss, parts

    def tick(text: str, done: int, total: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    task.loss = recorded
    AcceleratorState._reset_state(reset_partial_state=True)  # of the run in the other precision
    config = TrainConfig(
        task="mesh", seed=4, steps=steps, batch=batch, lr=1e-3, warmup=20, clip_norm=5.0, precision=precision
    )
    fit(task, config, folder / precision, progress=tick)
    return [float(loss) for loss in losses], [after - before for before, after in itertools.pairwise(times)]


def of_pool(pool: Mapping[str, Any], scenes: int, indices: Sequence[int]) -> dict[str, Any]:
    rows = [index % scenes for index in indices]
    return {name: values[rows] for name, values in pool.items()}


def rows_of(report: Report, precision: str, losses: Sequence[float], people_per_s: float) -> None:
    first, last = mean(losses[: tail(losses)]), mean(losses[-tail(losses) :])
    report.value(f"training in {precision}, {len(losses)} steps", people_per_s, "people/s", note="scenes drawn before")
    report.value(f"loss at the end over that at the start, {precision}", last / first, "", 1.0)


def tail(losses: Sequence[float]) -> int:
    """How many steps at either end are averaged."""
    return max(1, len(losses) // 10)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
