import errno
import signal
import threading

import pytest

from jotr_deploy.errors import OutputError
from jotr_deploy.support.writing import aside_of, uninterrupted, written_aside

REMEDY = "choose a writable folder that exists and has free space"


def write_half(path, failure):
    with written_aside(path) as aside:
        aside.write_bytes(b"half")
        raise failure


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with written_aside(path) as aside:
        aside.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert aside.suffix == path.suffix
    assert [p.name for p in tmp_path.iterdir()] == ["out.bin"]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(OSError(errno.ENOSPC, "No space left on device"), OutputError), (ValueError("a bug"), ValueError)],
)
def test_a_failure_leaves_what_was_there(tmp_path, failure, expected):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(expected):
        write_half(path, failure)
    assert [p.name for p in tmp_path.iterdir()] == ["out.bin"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("place", "reason"), [("missing/out.bin", "No such file or directory"), ("file/out.bin", "Not a directory")]
)
def test_no_folder_is_a_users_mistake(tmp_path, place, reason):
    (tmp_path / "file").touch()
    path = tmp_path / place
    with pytest.raises(OutputError) as caught, written_aside(path) as aside:
        aside.write_bytes(b"x")
    assert (caught.value.cause, caught.value.remedy) == (f"{path}: cannot be written ({reason})", REMEDY)


def test_the_name_aside_is_hidden_and_keeps_the_suffix(tmp_path):
    aside = aside_of(tmp_path / "mesh.int8.onnx")
    assert aside.parent == tmp_path
    assert aside.name.startswith(".mesh.int8.")
    assert aside.suffix == ".onnx"


def interrupted_work(done):
    with uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("whole")
    done.append("after")


def test_an_interrupt_waits_for_the_end_of_the_block():
    done, before = [], signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupted_work(done)
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is before


def test_without_an_interrupt_nothing_happens_in_any_thread():
    done = []

    def work():
        with uninterrupted():
            done.append("whole")

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["whole", "whole"]
