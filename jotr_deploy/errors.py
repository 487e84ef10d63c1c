"""User-fixable errors: one line of cause, one of remedy, exit code 2. A bug shows a traceback, exit code 1."""

from __future__ import annotations

import unicodedata


class JotrDeployError(Exception):
    """Base class of all user-fixable errors.

    `cause` names the fault and its location, `remedy` the fix; each is one line.
    """

    exit_code = 2

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause}\n{remedy}")
        self.cause = cause
        self.remedy = remedy


class CheckpointError(JotrDeployError):
    """A checkpoint that cannot be read, or does not fit the configuration."""


class BodyFileError(JotrDeployError):
    """A body model, regressor or pose prior file that cannot be read or has the wrong shapes."""


class BundleError(JotrDeployError):
    """A bundle that is damaged, missing, or not made for this use."""


class KeypointFileError(JotrDeployError):
    """A keypoint or box file that cannot be read, or does not belong to the source."""


class DatasetError(JotrDeployError):
    """A data set that is missing, or whose files do not match its layout."""


class SourceError(JotrDeployError):
    """An image, video or folder that cannot be read."""


class OutputError(JotrDeployError):
    """A result that cannot be written."""


class SessionError(JotrDeployError):
    """A model file that cannot be opened, or feeds that do not fit it."""


class FitError(JotrDeployError):
    """A fit that cannot start: kernels, features and people do not match, or contain values that are not finite."""


class FetchError(JotrDeployError):
    """Networks that cannot be fetched, or are not the expected ones."""


class VerificationError(JotrDeployError):
    """A derived network whose outputs differ from its reference by more than the limit."""


class MissingDependency(JotrDeployError):
    """A package that this verb needs is not installed."""


def choice(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that an option does not accept."""
    if value not in allowed:
        raise JotrDeployError(f"{option}: {value!r} is not known", f"give one of {', '.join(allowed)}")


def at_least_1(option: str, value: int | None) -> None:
    """Refuse a count below 1; None stands for the default."""
    if value is not None and value < 1:
        raise JotrDeployError(f"{option}: {value} is too few", "give 1 or more")


def install(*extras: str) -> str:
    """The command that installs this package with these extras. It is on no package index, so it needs a clone."""
    what = f"'.[{','.join(extras)}]'" if extras else "."
    return f"pip install {what} in a clone of jotr-deploy"


UPGRADE = f"upgrade: git pull, then {install()}"


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's text, for use inside a one-line cause."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def one_line(text: str) -> str:
    """Text from outside, for display: control characters are escaped, spaces of any kind are kept."""
    return "".join(
        letter
        if letter.isprintable() or unicodedata.category(letter) == "Zs"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )
