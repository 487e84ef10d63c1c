"""Held-out samples of every task and their figures: by hand, and equal to those of `eval`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_scenes import prior_file
from made_sets import as_written, joints_of, jotr_task, write
from miniature import KNOWN, write_miniature
from tiny import TINY
from torch import Tensor

from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.errors import BodyFileError, DatasetError, JotrDeployError
from jotr_deploy.evaluation.measured_joints import H36MRegressor
from jotr_deploy.training.detector_samples import IGNORED, NOBODY, PERSON
from jotr_deploy.training.found_boxes import FALSE, NOT_COUNTED, TRUE, average_precision, detection_figures, judged
from jotr_deploy.training.held_out import Figure, HeldOut
from jotr_deploy.training.held_out_people import joint_errors
from jotr_deploy.training.run_config import Evaluation, TrainConfig, TrainingError
from jotr_deploy.training.tasks import detector_task, features_task, make_task, mesh_task, pose_task, prior_task

pytestmark = pytest.mark.slow


def measured(model: torch.nn.Module, held_out: HeldOut, *numbers: int) -> dict[str, np.ndarray]:
    """Rows of these samples, and that measuring them changes nothing."""
    batch = {name: torch.from_numpy(values) for name, values in held_out.samples(numbers).items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    model.eval()
    with torch.no_grad():
        rows = {name: value.numpy() for name, value in held_out.measure(batch).items()}
    assert torch.equal(torch.rand(1), torch.manual_seed(3) and torch.rand(1))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert len({len(values) for values in rows.values()}) == 1
    return rows


# ── the figures by hand ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("right", "people", "area"),
    [([], 2, 0.0), ([True, True], 2, 1.0), ([False, True], 1, 0.5), ([True, False, True], 2, 0.5 + 0.5 * 2 / 3),
     ([True], 4, 0.25), ([False], 1, 0.0)],
)  # fmt: skip
def test_average_precision(right: list[bool], people: int, area: float) -> None:
    assert average_precision(np.array(right, bool), people) == pytest.approx(area)


PERSON_BOX, HIDDEN_BOX, FAR_BOX = [0, 0, 10, 20], [50, 0, 60, 20], [100, 100, 110, 120]


@pytest.mark.parametrize(
    ("boxes", "scores", "verdicts"),
    [
        ([], [], []),
        ([PERSON_BOX], [0.9], [TRUE]),
        ([FAR_BOX], [0.9], [FALSE]),
        ([HIDDEN_BOX, PERSON_BOX], [0.9, 0.8], [NOT_COUNTED, TRUE]),
        ([PERSON_BOX, [0, 0, 10, 30]], [0.5, 0.6], [TRUE]),  # the lower one overlaps too much
        ([[0, 0, 10, 8], PERSON_BOX], [0.4, 0.9], [TRUE, FALSE]),  # of a person found already
        ([PERSON_BOX], [0.001], []),
    ],
)
def test_boxes_are_judged(boxes: list, scores: list, verdicts: list) -> None:
    true, kind = np.array([PERSON_BOX, HIDDEN_BOX, [0, 0, 0, 0]], float), np.array([PERSON, IGNORED, NOBODY])
    row = judged(np.array(boxes, float).reshape(-1, 4), np.array(scores, float), true, kind)
    assert row["people"] == 1
    assert row["verdict"][: len(verdicts)].tolist() == verdicts
    assert (row["score"][len(verdicts) :] == 0).all()
    assert (row["verdict"][len(verdicts) :] == NOT_COUNTED).all()


def test_figures_of_a_detector() -> None:
    """Two pictures: a sure person and a sure false one; a person below the threshold."""
    rows = {
        "score": np.array([[0.9, 0.8], [0.2, 0.0]]), "verdict": np.array([[FALSE, TRUE], [TRUE, NOT_COUNTED]]),
        "people": np.array([1.0, 1.0]),
    }  # fmt: skip
    found = detection_figures(rows)
    assert found == {"average_precision": pytest.approx(200 / 3), "recall": 50.0, "false_people": 0.5}
    nobody = detection_figures({**rows, "people": np.zeros(2)})
    assert np.isnan([nobody["average_precision"], nobody["recall"]]).all()


def test_errors_of_joints() -> None:
    true = np.random.default_rng(0).normal(0, 0.3, (2, 14, 3))
    moved = joint_errors({"found_m": true + np.array([0.003, 0, 0.004]), "true_m": true})
    assert moved == {"mpjpe_mm": pytest.approx(5), "pa_mpjpe_mm": pytest.approx(0, abs=1e-6)}


@pytest.mark.parametrize(("figure", "text"), [(Figure("MPJPE", "mm"), "MPJPE 101.9 mm"), (Figure("x", ""), "x 101.9")])
def test_a_figure_as_text(figure: Figure, text: str) -> None:
    assert figure.text(101.94) == text


# ── the tasks ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_people_are_measured_as_eval_measures_them(tmp_path: Path, tiny_bundle: Path) -> None:
    from jotr_deploy.api import evaluate
    from jotr_deploy.export.assemble import load_stand_in

    task = mesh_task.make(mesh_task.Options(prior=prior_file(tmp_path), model=TINY), 3)
    task.model.network.load_state_dict(load_stand_in(TINY).model.state_dict(), strict=False)
    held_out = task.held_out(Evaluation(every=1, seed=2001, samples=2))
    figures = held_out.summary(measured(task.model, held_out, 0, 1))
    expected: Any = evaluate(tiny_bundle, seed=2001, scenes=2, threads=1)
    row = expected.errors.people["all"]
    assert figures == {
        "mpjpe_mm": pytest.approx(row.mpjpe_mm, abs=0.06), "pa_mpjpe_mm": pytest.approx(row.pa_mpjpe_mm, abs=0.06)
    }  # fmt: skip


def test_a_detector() -> None:
    """A network that knows the truth finds everybody; the untrained one, nobody."""
    task = detector_task.make(detector_task.Options(), 3)
    held_out = task.held_out(Evaluation(every=1, samples=3))
    untrained = held_out.summary(measured(task.model, held_out, 0, 1, 2))
    assert untrained["recall"] == 0

    class Knows(torch.nn.Module):
        """Boxes of the samples at the first cells."""

        def forward(self, image: Tensor) -> Tensor:
            given = held_out.samples([0, 1, 2])
            boxes, there = torch.from_numpy(given["boxes"]), torch.from_numpy(given["kind"] == PERSON)
            rows = torch.full((3, len(task._cell), 6), -9.0)
            stride, cell = task._stride[:4], task._cell[:4]
            rows[:, :4, :2] = (boxes[..., :2] + boxes[..., 2:]) / 2 / stride - cell
            rows[:, :4, 2:4] = ((boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3) / stride).log()
            rows[:, :4, 4:] = torch.where(there, 9.0, -9.0)[..., None]
            return rows

    task.model = Knows()
    assert held_out.summary(measured(task.model, held_out, 0, 1, 2)) == {
        "average_precision": pytest.approx(100), "recall": pytest.approx(100), "false_people": 0
    }  # fmt: skip


def test_a_pose_network() -> None:
    """One that answers the middle of the input is as far off as the joints are from there."""
    task = pose_task.make(pose_task.Options(), 3)
    held_out = task.held_out(Evaluation(every=1, samples=2))
    batch = held_out.samples([0, 1])
    seen = batch["confidence"] == 1

    class Middle(torch.nn.Module):
        def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, y = torch.zeros(2, 17, 192), torch.zeros(2, 17, 256)
            x[..., 96], y[..., 128] = 9, 9
            return x, y, torch.full((2, 17), 9.0)

    task.model = Middle()
    figures = held_out.summary(measured(task.model, held_out, 0, 1))
    away = np.linalg.norm(batch["joints"] - (48, 64), axis=-1)[seen]
    assert figures["error_px"] == pytest.approx(away.mean(), rel=1e-5)
    assert figures["within_5_px"] == pytest.approx(100 * (away <= 5).mean())
    assert figures["known"] == 100
    rows = {"error_px": away, "known": away > 0, "seen": np.zeros(len(away), bool)}
    assert np.isnan(list(held_out.summary(rows).values())).all()


def test_features() -> None:
    """A bank whose rows are what the network gives is matched exactly; one of other rows is not."""
    network = {"side": 64, "depth": 10, "width": 8, "bottom": 16, "ups": ((16, 16), (16, 8), (8, 8)), "channels": 8}
    options = features_task.Options(network=network, kernels=60, precision=400.0, q_max=4.6, clutter=8)
    task = features_task.make(options, 3)
    held_out = task.held_out(Evaluation(every=1, samples=2))
    before = held_out.summary(measured(task.model, held_out, 0, 1))
    assert before["within_10_cm"] < 50
    assert 0 <= before["clutter"] <= 100
    with torch.no_grad():
        batch = {name: torch.from_numpy(values) for name, values in held_out.samples([0]).items()}
        features = task.model.extractor(batch["image"].float() / 255)
        drawn, selection, _ = task._drawn(batch, features.shape[-1])
        found, seen = features_task.kernel_features(features, drawn, selection, 60)
        rows = -found[0, seen[0]].mean(0).expand(60, -1).clone()
        rows[seen[0]] = found[0, seen[0]]
        task.model.bank.rows[: 3 * 60] = rows.repeat(3, 1)
        task.model.bank.rows[3 * 60 :] = -found[0, seen[0]].mean(0)
    exact = held_out.summary(measured(task.model, held_out, 0))
    assert exact == {"within_10_cm": 100, "clutter": pytest.approx(0, abs=1e-9), "distance_mm": pytest.approx(0)}
    assert np.isnan(held_out.summary({"distance_m": np.ones(2), "seen": np.zeros(2, bool)})["within_10_cm"])


def test_a_pose_prior() -> None:
    task = prior_task.make(prior_task.Options(), 1)
    held_out = task.held_out(Evaluation(every=1, samples=3))
    rows = measured(task.model, held_out, 0, 1, 2)
    assert rows["joints_m"].shape == (3, 30)
    pose = np.zeros((24, 3))
    pose[1:22] = held_out.samples([1])["pose"][0]
    with torch.no_grad():
        true = torch.from_numpy(held_out.samples([1])["pose"])
        made = prior_task.matrix_from_axis_angle(task.model.decoder(task.model.encode(
            prior_task.matrix_from_axis_angle(true))[0]))  # fmt: skip
        moved = task._joints(made)[0].numpy()
    expected = joints_of(pose, np.zeros(10))
    away = np.linalg.norm(moved - (expected - expected[0] + moved[0]), axis=-1)
    np.testing.assert_allclose(away[:24], rows["joints_m"][1][:24], atol=15e-3)  # the face moves with the head here
    assert held_out.summary(rows) == {"joints_mm": pytest.approx(1000 * rows["joints_m"].mean(), rel=1e-5)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set to train on and 3DPW, with bodies of all genders."""
    written = tmp_path_factory.mktemp("sets")
    write(written, ("mscoco",))
    write_miniature("3dpw", written)
    for gender in ("MALE", "FEMALE"):
        shutil.copy(written / "SMPL_NEUTRAL.npz", written / f"SMPL_{gender}.npz")
    return written


@pytest.mark.parametrize("count", [None, 3, 100])
def test_a_published_set(folder: Path, count: int | None) -> None:
    """Everybody of the validation split, or some spread over it; found joints are those of the found mesh."""
    task = jotr_task(as_written(folder, ("mscoco",)))
    held_out = task.held_out(Evaluation(every=1, samples=count))
    everybody = len(KNOWN["3dpw", "validation"])
    assert held_out.count == min(count or everybody, everybody)
    if count != 3:
        return
    numbers = range(held_out.count)
    rows = measured(task.model, held_out, *numbers)
    batch = {name: torch.from_numpy(values) for name, values in held_out.samples(numbers).items()}
    regressor = H36MRegressor(np.load(folder / "h36m.npy").astype(np.float64))
    with torch.no_grad():
        found, *_ = task.model(batch["image"], batch["joints"], batch["joints_mask"])
        meshes, _ = SkinnedBody(mesh_task.stand_in())(found.pose, found.betas)
    np.testing.assert_allclose(rows["found_m"], regressor(np.zeros(0), meshes.numpy()), atol=2e-5)
    assert {"mpjpe_mm", "pa_mpjpe_mm"} == held_out.summary(rows).keys()


@pytest.mark.parametrize(
    ("evaluation", "options", "kind", "cause"),
    [
        ({"set": "mscoco"}, {}, TrainingError, "evaluation.set: mscoco is trained on"),
        ({"set": "muco"}, {}, TrainingError, "evaluation.set: 'muco' is not evaluated on"),
        ({"set": "3doh"}, {}, DatasetError, "3DOH50K has no split 'validation'"),
        ({"set": "3doh", "split": "test"}, {}, DatasetError, "{0}: 3DOH50K (test) is not complete"),
        ({}, {"h36m_regressor": None}, TrainingError, "evaluation: jotr.h36m_regressor is not what true bodies"),
        ({}, {"smpl": "SMPL_NEUTRAL.npz"}, TrainingError, "evaluation: jotr.smpl is not what true bodies"),
        ({}, {"smpl": "alone"}, BodyFileError, "{0}/alone: no female SMPL file"),
    ],
)
def test_published_refusals(
    folder: Path, evaluation: dict[str, Any], options: dict[str, Any], kind: type[JotrDeployError], cause: str
) -> None:
    (folder / "alone").mkdir(exist_ok=True)
    shutil.copy(folder / "SMPL_NEUTRAL.npz", folder / "alone")
    if "smpl" in options:
        options = {"smpl": folder / options["smpl"]}
    task = jotr_task({**as_written(folder, ("mscoco",)), **options})
    with pytest.raises(kind) as error:
        task.held_out(Evaluation(every=1, **evaluation))
    assert error.value.cause.startswith(cause.format(folder))


@pytest.mark.parametrize(
    ("evaluation", "cause"),
    [
        ({"seed": 7}, "evaluation.seed: 7 is the seed of the training"),
        ({"set": "3dpw"}, "evaluation.set: this task is evaluated on drawn samples"),
    ],
)
@pytest.mark.parametrize("name", ["prior", "pose", "detector"])
def test_samples_of_the_training_are_refused(name: str, evaluation: dict[str, Any], cause: str) -> None:
    task, _ = make_task(TrainConfig(task=name, seed=7, steps=1, batch=1, lr=1e-3))
    with pytest.raises(TrainingError) as error:
        task.held_out(Evaluation(every=1, **evaluation))
    assert error.value.cause.startswith(cause)
