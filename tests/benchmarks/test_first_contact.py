"""The first contact with a GPU: what it says and keeps however its parts end; here with parts that need no GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import first_contact
import pytest
from first_contact import Part

GPU = Path(first_contact.__file__).parent

MODULES = {
    "made_machine": "report.check('PyTorch', True, 'a GPU')",
    "made_bare": "report.check('PyTorch', False, 'no CUDA device')",
    "made_good": "report.value('error', 0.5, 'mm', 1.0); report.fact('it is', 'so')",
    "made_bad": "report.value('error', 2.0, 'mm', 1.0)",
    "made_nan": "report.value('error', float('nan'), 'mm', 1.0)",
    "made_partial": "needs('no_such_package')",
    "made_importing": "import no_such_package",
    "made_raising": "report.fact('before', 'it'); 1 / 0",
    "made_crashing": "report.fact('before', 'it'); import os; print('gone'); os.kill(os.getpid(), 11)",
    "made_leaving": "print('sorry'); import os; os._exit(3)",
    "made_hanging": "report.fact('before', 'it'); import time; time.sleep(60)",
    "made_wheel": "import carried; report.fact('carried', carried.VALUE)",
}


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces the parts: `parts("good", hanging=2)`; the others may take a minute."""
    folder = tmp_path / "made" / "measuring"
    folder.mkdir(parents=True)
    for module, line in MODULES.items():
        text = f"from measuring.report import needs\n\ndef measure(report):\n    {line}\n"
        (folder / f"{module}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    monkeypatch.setattr(first_contact, "MACHINE", Part("made_machine", 60, ""))
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # the tests keep their own

    def chosen(*names: str, **seconds: float) -> None:
        whole = {name: Part(f"made_{name}", 60, "") for name in names}
        whole |= {name: Part(f"made_{name}", limit, "") for name, limit in seconds.items()}
        monkeypatch.setattr(first_contact, "PARTS", whole)

    return chosen


def ran(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """The exit code."""
    monkeypatch.setattr(sys, "argv", ["first_contact.py", *options])
    with pytest.raises(SystemExit) as left:
        first_contact.main()
    return int(left.value.code or 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code", "end", "states", "word"),
    [
        ("good", 0, "complete", ["ok", "measured"], "0.5 mm (limit 1)"),
        ("bad", 1, "complete", ["failed"], "FAILED"),
        ("nan", 1, "complete", ["failed"], "nan"),
        ("partial", 0, "complete", ["left out"], "not installed: no_such_package"),
        ("importing", 0, "complete", ["left out"], "not installed: no_such_package"),
        ("raising", 1, "complete", ["measured", "failed"], "ZeroDivisionError"),
        ("crashing", 1, "crashed, SIGSEGV: gone", ["measured"], "CRASHED"),
        ("leaving", 1, "crashed, exit code 3: sorry", [], "CRASHED"),
    ],
)
def test_the_end_of_a_part(
    name: str, code: int, end: str, states: list[str], word: str, parts: Any, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    parts(name)
    assert ran(monkeypatch, "--json", str(tmp_path / "found.json")) == code
    part = json.loads((tmp_path / "found.json").read_text())["parts"][name]
    assert part["end"] == end
    assert [row["state"] for row in part["rows"]] == states
    assert word in capsys.readouterr().out


@pytest.mark.slow
def test_a_part_that_hangs_is_cut_and_the_next_runs(
    parts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts(hanging=1.5, good=60)
    assert ran(monkeypatch, "--json", str(tmp_path / "found.json")) == 1
    found = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert (found["hanging"]["end"], found["good"]["end"]) == ("cut after 2 s", "complete")
    assert [row["what"] for row in found["hanging"]["rows"]] == ["before"]
    assert "look at: hanging" in capsys.readouterr().out


@pytest.mark.slow
def test_the_budget_is_kept_and_what_it_leaves_out_is_named(
    parts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts("good", "bad")
    monkeypatch.setattr(first_contact, "LEAST_SECONDS", 1000)
    assert ran(monkeypatch, "--budget-s", "500", "--json", str(tmp_path / "found.json")) == 0
    found = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert {part["end"] for part in found.values()} == {"not begun: the budget is spent"}
    assert "not begun: good, bad" in capsys.readouterr().out


@pytest.mark.slow
def test_only_runs_what_is_named_in_its_own_order(parts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parts("bad", "good", "partial")
    assert ran(monkeypatch, "--only", "partial,good", "--json", str(tmp_path / "found.json")) == 0
    assert list(json.loads((tmp_path / "found.json").read_text())["parts"]) == ["good", "partial"]


@pytest.mark.slow
def test_without_a_gpu_one_line_says_so(
    parts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts("good")
    monkeypatch.setattr(first_contact, "MACHINE", Part("made_bare", 60, ""))
    assert ran(monkeypatch) == 2
    assert capsys.readouterr().err.startswith("no CUDA device\nrun this where nvidia-smi shows a GPU")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--only", "kernal"], "no part 'kernal'"),
        (["--only", ""], "no part ''"),
        (["--budget-s", "0"], "not a time"),
        (["--budget-s", "nan"], "not a time"),
        (["--json", "nowhere/found.json"], "its folder does not exist"),
        (["--with", "nowhere"], "no wheels in it"),
    ],
)
def test_a_wrong_option_is_named(
    options: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], parts: Any
) -> None:
    parts("good")
    assert ran(monkeypatch, *options) == 2
    assert words in capsys.readouterr().err


def wheel(folder: Path, name: str, tag: str = "py3-none-any") -> None:
    about = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}.py", "VALUE = 'from the wheel'\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.mark.slow
def test_wheels_are_importable_in_the_parts(
    parts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts("wheel")
    wheel(tmp_path, "carried")
    assert ran(monkeypatch, "--with", str(tmp_path)) == 0
    assert "from the wheel" in capsys.readouterr().out


@pytest.mark.slow
def test_a_wheel_for_another_machine_is_named(
    parts: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts("wheel")
    wheel(tmp_path, "carried", "cp27-cp27m-win32")
    assert ran(monkeypatch, "--with", str(tmp_path)) == 2
    assert "carried-1.0-cp27-cp27m-win32.whl" in capsys.readouterr().err


def test_headers_beside_the_wheels_are_those_of_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORRT_ROOT", raising=False)
    (tmp_path / "include").mkdir()
    assert first_contact.prepared(tmp_path, tmp_path / "site")["TENSORRT_ROOT"] == str(tmp_path)


@pytest.mark.slow
def test_stopped_it_keeps_what_was_found(parts: Any, tmp_path: Path) -> None:
    """With the rows of the part that it was in; nothing that it started is left."""
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import first_contact as f; P = f.Part\n"
        "f.MACHINE = P('made_machine', 60, ''); f.PARTS = {'good': P('made_good', 60, ''), "
        "'hanging': P('made_hanging', 60, ''), 'bad': P('made_bad', 60, '')}\nf.main()"
    )
    found = tmp_path / "found.json"
    command = [sys.executable, "-c", script, str(GPU), "--json", str(found)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout is not None
    for line in process.stdout:
        if "it is" in line:  # the last row of the first part
            break
    give_up = time.monotonic() + 30
    while not _children(process.pid) and time.monotonic() < give_up:
        time.sleep(0.05)
    time.sleep(1.0)  # for the second part to write its row
    children = _children(process.pid)
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "stopped: what was found until then is above and in" in rest
    result = json.loads(found.read_text())
    assert result["stopped"]
    assert {name: part["end"] for name, part in result["parts"].items()} == {"good": "complete", "hanging": "stopped"}
    assert [row["what"] for row in result["parts"]["hanging"]["rows"]] == ["before"]
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def _children(process: int) -> list[str]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return path.read_text().split() if path.is_file() else []


def test_every_part_has_its_module() -> None:
    for part in [first_contact.MACHINE, *first_contact.PARTS.values()]:
        assert "def measure(" in (GPU / "measuring" / f"{part.module}.py").read_text()
