"""The length of the published training by the papers of its sets, where the sets are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from jotr_deploy.training.published.set_sizes import BY_PAPERS, epoch_by_papers, length_by_papers
from jotr_deploy.training.run_config import TrainConfig, read_config
from jotr_deploy.training.tasks.jotr_task import TRAINED_ON

MAIN = Path(__file__).parents[3] / "configs" / "published" / "main.toml"


def test_every_set_that_is_trained_on_has_a_size() -> None:
    assert set(BY_PAPERS) == set(TRAINED_ON)


@pytest.mark.parametrize(
    ("sets", "epoch"),
    [
        (tuple(BY_PAPERS), 2 * 712_000),
        (("mscoco", "crowdpose"), 190_000),
        (("h36m",), 312_000),
        (("h36m", "mscoco"), 2 * 312_000),
        ((), None),
        (("3dpw",), None),
    ],
)
def test_an_epoch_is_twice_the_longer_kind(sets: tuple[str, ...], epoch: int | None) -> None:
    assert epoch_by_papers(sets) == epoch


def test_the_length_of_the_published_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    text = length_by_papers(read_config(MAIN))
    assert text is not None
    assert text.endswith("an epoch is about 1424000 people, 5562 steps of 256; 18 epochs are about 100125 steps")
    by_steps = length_by_papers(read_config(MAIN, ["steps=1000"]).model_copy(update={"epochs": None}))
    assert by_steps is not None
    assert by_steps.endswith("1000 steps are about 0.18 epochs")


def test_other_tasks_have_none() -> None:
    assert length_by_papers(TrainConfig(task="mesh", steps=1, batch=1, lr=1)) is None
    of_others = TrainConfig(task="jotr", steps=1, batch=1, lr=1, options={"sets": ["3dpw"]})
    assert length_by_papers(of_others) is None
