"""Options that `run` and `batch` share."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from jotr_deploy.errors import JotrDeployError
from jotr_deploy.support.choices import DEVICES, FITS, listed

SMALLEST_OVERLAY = 0.05
"""Share of a picture's sides that an overlay keeps at least; much less shows nothing."""
ONE_OF_THEM = "leave one of them out"

Every = Annotated[int, typer.Option(min=1, help="Process every Nth frame.")]
MaxPeople = Annotated[int | None, typer.Option(min=1, help="Keep at most N people per frame, highest score first.")]
Roi = Annotated[str | None, typer.Option(help="X0,Y0,X1,Y1 in pixels: keep only people in this region of the picture.")]
Smooth = Annotated[str | None, typer.Option(help="Smooth a video: one-euro (no delay) or two-sided (no lag).")]
Align = Annotated[
    bool | None,
    typer.Option("--align/--no-align", help="Align people to their 2-D joints; by default the bundle decides."),
]
Fit = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET",
        help=f"Fit people to features of the picture, instead of aligning them: {listed(FITS)}, see docs/fitting.md. "
        "Needs a bundle with features, and PyTorch.",
    ),
]
Camera = Annotated[
    str | None,
    typer.Option(
        help="Camera of the pictures: a calibration file as OpenCV writes it, or published (one for each person). "
        "By default it is read from EXIF data, or guessed."
    ),
]
Fov = Annotated[
    float | None, typer.Option(metavar="DEG", help="Field of view across the picture's longer side, in degrees.")
]
Focal = Annotated[float | None, typer.Option(metavar="PX", help="Focal length of the camera in pixels.")]
OverlayScale = Annotated[
    float | None, typer.Option(metavar="F", help="Draw overlays smaller: sides scaled by F, from 0.05 to 1.")
]
Save2d = Annotated[bool, typer.Option("--save-2d", help="Also draw and save the 2-D joints used.")]
Vertices = Annotated[
    bool, typer.Option("--vertices", help="Store meshes in the .npz, 83 kB each, instead of rebuilding them.")
]
Obj = Annotated[bool, typer.Option("--obj", help="Also write meshes as OBJ.")]
Glb = Annotated[bool, typer.Option("--glb", help="Also write an (animated) GLB.")]
Coco = Annotated[bool, typer.Option("--coco", help="Also write people as COCO results.")]
SaveFit = Annotated[
    bool, typer.Option("--save-fit", help="With --fit, also draw occlusion maps: where something hides people.")
]
KeepGoing = Annotated[bool, typer.Option("--keep-going", help="Report frames that fail and skip them.")]
File = Annotated[str | None, typer.Option(help="Network file of the bundle; mesh.onnx by default.")]
Device = Annotated[str, typer.Option(help=f"{listed(DEVICES)}.")]


def require_fit_alone(fit: str | None, align: bool | None, save_fit: bool) -> None:
    """Refuse a fit with alignment, and drawings of a fit without one."""
    if fit is not None and align:
        raise JotrDeployError(
            "--fit and --align contradict each other: a fit starts from the unaligned pose", ONE_OF_THEM
        )
    if fit is None and save_fit:
        raise JotrDeployError("--save-fit needs --fit", "add --fit default, or leave --save-fit out")


def require_overlay_scale(scale: float | None, overlay: bool, without: str) -> None:
    """Refuse a scale that draws nothing to be seen, or no overlay at all; `without` says how that was asked for."""
    if scale is None:
        return
    if not SMALLEST_OVERLAY <= scale <= 1:
        raise JotrDeployError(
            f"--overlay-scale {scale:g}: not between {SMALLEST_OVERLAY} and 1",
            "give a fraction, such as 0.5 for half the width",
        )
    if not overlay:
        raise JotrDeployError(f"--overlay-scale and {without} contradict each other", ONE_OF_THEM)


def region(text: str | None) -> tuple[int, int, int, int] | None:
    """The region of `--roi`."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"\s*-?[0-9]+\s*", part) for part in parts):
        raise JotrDeployError(
            f"--roi {text}: not four whole numbers", "give X0,Y0,X1,Y1 in pixels, such as 0,0,640,480"
        )
    x0, y0, x1, y1 = map(int, parts)
    return x0, y0, x1, y1
