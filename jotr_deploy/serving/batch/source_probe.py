"""Number and times of the frames of sources, read in a process of its own: a film that kills its decoder kills only it.

`python -m jotr_deploy.serving.batch.source_probe` reads one JSON line a source from standard input, and answers each
with one line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

MODULE = "jotr_deploy.serving.batch.source_probe"
NOTHING: dict[str, Any] = {"kind": "unreadable", "name": None, "frames": 0, "fps": 0.0, "even": False}


def probed(paths: list[str], long_frames: float) -> Iterator[dict[str, Any]]:
    """Kind, name, frames and rate of each source, and whether the frames of a film are even in time.

    Args:
        paths: absolute.
        long_frames: films with no more frames than this are not looked at for evenness.
    """
    process: subprocess.Popen[str] | None = None
    try:
        for path in paths:
            if process is None:
                process = subprocess.Popen(
                    [sys.executable, "-m", MODULE, json.dumps(long_frames)], text=True, encoding="utf-8",
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                )  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(path) + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
            if not answer.endswith("\n"):  # it died of this one
                process.wait()
                process = None
            yield json.loads(answer) if answer.endswith("\n") else NOTHING
    finally:
        if process is not None:
            process.kill()
            process.wait()


def probe(path: str, long_frames: float) -> dict[str, Any]:
    """The answer for one source."""
    from jotr_deploy.errors import JotrDeployError
    from jotr_deploy.runtime.sources.opening import open_source
    from jotr_deploy.runtime.sources.video_file import Video

    try:
        with open_source(path, [], upright=True) as source:
            frames = source.total or source.settle_total() or 0
            even = isinstance(source, Video) and frames > long_frames and source.probe()
            return {"kind": source.kind, "name": source.name, "frames": frames, "fps": source.fps, "even": even}
    except JotrDeployError:  # its shard will say why
        return NOTHING


def main() -> None:
    """Answer until standard input ends."""
    long_frames = json.loads(sys.argv[1])
    for line in sys.stdin:
        sys.stdout.write(json.dumps(probe(json.loads(line), long_frames)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
