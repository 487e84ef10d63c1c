"""The examples of deployment: their times fit together, and they name options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from jotr_deploy.cli import application

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = (DEPLOY / "kubernetes.yaml").read_text()


def number(pattern: str, text: str = KUBERNETES) -> float:
    (found,) = re.findall(pattern, text)
    return float(found)


def test_a_pod_has_the_time_to_drain() -> None:
    drain_s, deadline_s = number(r"--drain=(\d+)"), number(r"--deadline=(\d+)")
    readiness = KUBERNETES.partition("readinessProbe")[2].partition("livenessProbe")[0]
    noticed_s = number(r"periodSeconds: (\d+)", readiness) * number(r"failureThreshold: (\d+)", readiness)
    assert "/v2/health/ready" in readiness
    assert noticed_s + number(r"timeoutSeconds: (\d+)", readiness) < drain_s
    assert drain_s + deadline_s < number(r"terminationGracePeriodSeconds: (\d+)")
    assert "/v2/health/live" in KUBERNETES.partition("livenessProbe")[2]


def test_options_and_extras_exist() -> None:
    verb = typer.main.get_command(application("serve")).commands["serve"]  # type: ignore[attr-defined]
    known = {option for parameter in verb.params for option in parameter.opts}
    docker = (DEPLOY / "cpu.Dockerfile").read_text()
    named = set(re.findall(r"- (--[a-z-]+)", KUBERNETES)) | set(re.findall(r'"(--[a-z-]+)"', docker))
    assert named
    assert named <= known
    (extras,) = re.findall(r"\.\[([a-z,]+)\]", docker)
    pyproject = (DEPLOY.parent / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in pyproject for extra in extras.split(","))
