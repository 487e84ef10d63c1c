"""The list of precisions, and the other words that options take: each is complete wherever it is used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

import jotr_deploy as jd
from jotr_deploy.bundle import FileEntry
from jotr_deploy.calibration.eight_bit_formats import CODES
from jotr_deploy.calibration.ranges import SHARES
from jotr_deploy.errors import JotrDeployError
from jotr_deploy.support.choices import (
    BACKENDS,
    CALIBRATION_METHODS,
    PLUGINS,
    SAMPLINGS,
    Plugin,
    Sampling,
    explained,
    listed,
)
from jotr_deploy.support.precisions import Precision


@pytest.mark.parametrize("precision", Precision)
def test_a_precision_is_its_word_in_texts_files_and_manifests(precision: Precision) -> None:
    assert (f"{precision}", f"{precision:>6}", str(precision)) == (precision.value, f"{precision.value:>6}", precision)
    assert precision.file("sm90.engine") == f"mesh.{precision.value}.sm90.engine"
    entry = FileEntry(role="mesh", name=precision.file(), sha256="", precision=precision)
    assert json.loads(entry.model_dump_json())["precision"] == precision.value
    assert json.loads(json.dumps(precision)) == precision.value


@pytest.mark.parametrize("precision", Precision)
def test_a_precision_is_held_to_limits_or_calibrated(precision: Precision) -> None:
    assert (precision.limits is None) is precision.calibrated is (precision in CODES)


def test_the_first_gpus_of_each() -> None:
    assert {p: p.capability for p in Precision if p.capability > (0, 0)} == {"bf16": (8, 0), "fp8": (8, 9)}


@pytest.mark.parametrize("word", ["", "FP16", "fp64"])
def test_another_precision_is_refused(word: str) -> None:
    with pytest.raises(JotrDeployError) as refusal:
        Precision.of(word)
    assert refusal.value.cause == f"--precision: {word!r} is not known"
    assert refusal.value.remedy == "give one of fp32, fp16, bf16, int8, fp8"


def test_every_word_has_its_explanation_or_its_code() -> None:
    assert (tuple(SAMPLINGS), tuple(PLUGINS)) == (get_args(Sampling), get_args(Plugin))
    assert tuple(SHARES) == CALIBRATION_METHODS


@pytest.mark.parametrize(
    ("words", "text"), [((), ""), (("a",), "a"), (("a", "b"), "a or b"), (("a", "b", "c"), "a, b or c")]
)
def test_a_list_in_a_sentence(words: tuple[str, ...], text: str) -> None:
    assert listed(words) == text


def test_words_and_what_they_are() -> None:
    assert (explained({}), explained({"a": "one", "b": "two"})) == ("", "a: one; b: two")


@pytest.mark.parametrize(
    ("verb", "option", "words"),
    [
        ("build-engine", "--precision", tuple(Precision)),
        ("build-engine", "--backend", BACKENDS),
        ("build-engine", "--plugin", tuple(PLUGINS)),
        ("calibrate", "--precision", ("int8", "fp8")),
        ("calibrate", "--method", CALIBRATION_METHODS),
        ("export", "--sampling", tuple(SAMPLINGS)),
    ],
)
def test_the_command_line_takes_these_words_and_names_them(
    cli: Callable[..., Any], verb: str, option: str, words: tuple[str, ...]
) -> None:
    rest = ("-o", "never", "--stand-in") if verb == "export" else ("never",)
    refused = cli(verb, *rest, option, "another")
    assert refused.code == 2
    assert f"{option}: 'another' is not known" in refused.err
    assert f"give one of {', '.join(words)}" in " ".join(refused.err.split())
    text = " ".join(cli(verb, "--help").out.replace("│", " ").split())
    assert all(word in text for word in words)


def test_the_library_takes_words_too(tmp_path: Path) -> None:
    for changes in ({"precision": "fp64"}, {"backend": "openvno"}, {"backend": "onnxruntime", "precision": "fp64"}):
        with pytest.raises(JotrDeployError, match="is not known"):
            jd.build_engine("starter", output=tmp_path / "copy", **changes)
    with pytest.raises(JotrDeployError, match="'inlined' is not known"):
        jd.export_bundle(None, tmp_path / "bundle", sampling="inlined")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
