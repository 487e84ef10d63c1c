"""Verbs on a bundle whose manifest names a file of the user's: refused, and nothing is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from canned import write_yolox
from outcome import Outcome, tree

from jotr_deploy.bundle import sha256_of

Cli = Callable[..., Outcome]

AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"


@pytest.mark.parametrize("name", ["../keep.txt", "{place}/keep.txt", "bundle.json"])
@pytest.mark.parametrize("copy", [True, False])
def test_no_verb_touches_what_such_a_manifest_names(cli: Cli, place: Path, name: str, copy: bool) -> None:
    (place / "keep.txt").write_text("precious")
    manifest = json.loads((place / "bundle" / "bundle.json").read_text())
    entry = {"role": "detector", "name": name.format(place=place), "sha256": sha256_of(place / "keep.txt")}
    manifest["files"].append(entry)
    (place / "bundle" / "bundle.json").write_text(json.dumps(manifest))
    write_yolox(place / "d.onnx", np.zeros((189, 6)), (96, 96))
    before = tree(place)
    output = ("-o", place / "copy") if copy else ()
    for verb in (
        ("add", place / "bundle", "--detector", place / "d.onnx", *output),
        ("calibrate", place / "bundle", "--synthetic", 8, *output),
        ("build-engine", place / "bundle", "--backend", "onnxruntime", "--precision", "fp16", *output),
        ("bench", place / "bundle"),
    ):
        cause, remedy = cli(*verb).mistake
        assert "the file name" in cause, verb
        assert remedy == AGAIN
        assert tree(place) == before, verb
