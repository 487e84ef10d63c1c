"""The README is short, and its example of the library runs as it stands; the tutorial's steps run on the starter."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from outcome import Outcome

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def code(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document, re.S | re.M)


def test_it_has_at_most_700_words() -> None:
    assert 300 < len(README.split()) <= 700


@pytest.mark.slow
def test_the_library_example_runs(tmp_path: Path) -> None:
    (example,) = code(README, "python")
    scene = Path("jotr_deploy/visual/scene.jpg")
    (tmp_path / scene).parent.mkdir(parents=True)
    shutil.copy(ROOT / scene, tmp_path / scene)
    (tmp_path / "example.py").write_text(example)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); exec(open('example.py').read())"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["scene.jpg", "scene.jpg"]
    assert all(line.endswith("(6890, 3)") for line in done.stdout.splitlines())
    assert (tmp_path / "overlay.jpg").stat().st_size > 10_000


def test_the_tutorial_reads_its_result(
    cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = code((ROOT / "docs/tutorial.md").read_text(), "python")
    monkeypatch.chdir(tmp_path)
    assert cli("run", "starter", ROOT / "jotr_deploy/visual/scene.jpg", "-o", "video-result", "--no-overlay").code == 0
    exec(example.replace("video.npz", "scene.npz"), {})
    assert capsys.readouterr().out.strip().startswith("2 people in 1 frame")
