"""The error for a package that cannot be imported: it is not installed, or it is and something that it needs is not."""

from __future__ import annotations

from jotr_deploy.errors import MissingDependency, first_line


def not_importable(what: str, module: str, error: ImportError, remedy: str, otherwise: str = "") -> MissingDependency:
    """The error for a failed import.

    Args:
        what: the package in words; begins the message.
        module: full name of the imported module.
        error: of its import.
        remedy: the command that installs the package.
        otherwise: end of every remedy.
    """
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return MissingDependency(f"{what} is not installed", remedy + otherwise)
    return MissingDependency(
        f"{what} cannot be imported ({first_line(error)})",
        f"run jotr-deploy doctor to see what is missing, or install it again with pip's --force-reinstall{otherwise}",
    )
