"""Cut films: whatever the number of shards, results are those of a run of the whole film."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from batch_world import BLOCK, FPS, batch, contents, film, opened, scene, state, worker
from pictures import picture

from jotr_deploy.runtime.run import run
from jotr_deploy.visual.result_files import read_people


def whole(bundle: Path, source: Path, output: Path, plan_options: object) -> dict:
    run(opened(bundle), str(source), output, plan_options.for_run(1))  # type: ignore[attr-defined]
    return contents(output)


@pytest.mark.parametrize(
    ("variable", "options"),
    [
        (True, {"smooth": "two-sided"}),
        (False, {"every": 3, "vertices": True, "coco": True, "overlay": True, "save_2d": True, "align": False}),
    ],
)
def test_any_number_of_shards_gives_the_results_of_one_run(
    tmp_path: Path, squares: Path, variable: bool, options: dict
) -> None:
    source = film(tmp_path / "walk.mp4", 50, variable)
    expected = None
    for shards, frames in ((1, 100), (2, 30), (5, 10)):
        output = tmp_path / f"{shards}"
        per_minute = read_fps(source) * 60
        plan = batch(squares, output, source, shard=round(frames * FPS * 60 / per_minute), **options)
        assert len(plan.units) == (1 if shards == 1 else shards + 1)
        assert plan.sources[0].even is (not variable and shards > 1)
        worker(output).work()
        counts = state(output).counts()
        assert (counts.done, counts.failed, counts.missing) == (1, [], 0)
        if expected is None:
            expected = whole(squares, source, tmp_path / "run", plan.options)
            people = read_people(tmp_path / "run" / "walk.npz")
            assert np.bincount(people.people.track_ids).max() == 33 // options.get(
                "every", 1
            )  # who stands keeps the id
        assert contents(output / "walk") == expected
        assert not list((output / ".batch").glob("*.npz"))


def read_fps(source: Path) -> float:
    from jotr_deploy.runtime.sources.opening import open_source

    with open_source(source) as opened_source:
        return opened_source.fps


def test_frames_that_fail_are_those_of_the_run(tmp_path: Path, squares: Path) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    for number in range(25):
        picture(folder / f"{number}.png", scene(number))
    for number in (3, 12, 24):
        (folder / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    plan = batch(squares, tmp_path / "cut", folder, shard=4, keep_going=True)  # 25 pictures count as a second
    assert [unit.kind for unit in plan.units] == ["part", "part", "part", "join"]
    worker(tmp_path / "cut").work()
    expected = whole(squares, folder, tmp_path / "run", plan.options)
    assert contents(tmp_path / "cut" / "shots") == expected
    assert len(expected["shots.json"]["skipped"]) == 3


def test_a_part_that_begins_at_the_wrong_frame_is_found_and_read_again(
    tmp_path: Path, squares: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = film(tmp_path / "walk.mp4", 30)
    plan = batch(squares, tmp_path / "out", source, shard=BLOCK)
    assert plan.sources[0].even
    from jotr_deploy.runtime.sources import video_file

    def off_by_one(capture: object, first: int, fps: float) -> int:
        for _ in range(first - 1):
            capture.grab()  # type: ignore[attr-defined]
        return first

    monkeypatch.setattr(video_file, "landed", off_by_one)
    worker(tmp_path / "out").work()
    assert "parts do not meet at frame 10" in caplog.text
    assert contents(tmp_path / "out" / "walk") == whole(squares, source, tmp_path / "run", plan.options)


def test_a_film_shorter_than_it_says_has_empty_parts(tmp_path: Path, squares: Path) -> None:
    source = film(tmp_path / "walk.mp4", 30)
    plan = batch(squares, tmp_path / "out", source, shard=BLOCK, max_people=1)
    told = json.loads((tmp_path / "out" / "plan.json").read_text())
    told["sources"][0]["cuts"] += [30, 40]
    (tmp_path / "out" / "plan.json").write_text(json.dumps(told))
    worker(tmp_path / "out").work()
    assert contents(tmp_path / "out" / "walk") == whole(squares, source, tmp_path / "run", plan.options)
    assert np.diff(read_people(tmp_path / "out" / "walk" / "walk.npz").numbers).tolist() == [1] * 29
