"""Options of a batch that decide its results: all machines that work on it must agree on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jotr_deploy.bundle import Bundle, sha256_of
from jotr_deploy.runtime.finding.people_source import PeopleBy
from jotr_deploy.runtime.fitting_stage import Fitter
from jotr_deploy.runtime.motion.smoothing import Mode
from jotr_deploy.runtime.run import RunOptions
from jotr_deploy.runtime.sources.frame_source import BLOCK_FRAMES
from jotr_deploy.runtime.sources.scene_camera import PUBLISHED, choose_camera
from jotr_deploy.support.choices import FitChoice


@dataclass(frozen=True)
class BatchOptions:
    """Those of `run` that a batch has; every field is stored in the plan."""

    people: PeopleBy = "auto"
    every: int = 1
    max_people: int | None = None
    roi_px: tuple[int, int, int, int] | None = None
    smooth: Mode | None = None
    align: bool | None = None
    fit: str | None = None  # preset
    camera: str | None = None  # absolute path of a file, or "published"
    camera_sha256: str | None = None  # of that file, see `stamped`
    fov: float | None = None
    focal: float | None = None
    overlay: bool = False
    overlay_scale: float = 1.0
    save_2d: bool = False
    vertices: bool = False
    obj: bool = False
    glb: bool = False
    coco: bool = False
    save_fit: bool = False
    keep_going: bool = False
    file: str | None = None
    device: str = "auto"
    tf32: bool = False
    shard_minutes: float = 10.0
    block: int = BLOCK_FRAMES

    def as_dict(self) -> dict[str, Any]:
        """The options for the plan."""
        return {**asdict(self), "roi_px": None if self.roi_px is None else list(self.roi_px)}

    def stamped(self) -> BatchOptions:
        """The same, with the hash of the camera's file as it is now."""
        file = None if self.camera is None or self.camera == PUBLISHED else sha256_of(Path(self.camera))
        return replace(self, camera_sha256=file)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BatchOptions:
        """Reverse of `as_dict`."""
        roi_px = values["roi_px"]
        return cls(**{**values, "roi_px": None if roi_px is None else tuple(roi_px)})

    def for_run(self, threads: int | None) -> RunOptions:
        """The same as options of a run."""
        same = ("people", "every", "max_people", "roi_px", "smooth", "align", "overlay", "overlay_scale", "save_2d",
                "vertices", "obj", "glb", "coco", "save_fit", "keep_going", "file", "device", "tf32",
                "block")  # fmt: skip
        camera = choose_camera(self.camera, self.fov, self.focal)
        return RunOptions(**{name: getattr(self, name) for name in same}, camera=camera, threads=threads, partial=False)

    def fitter(self, bundle: Bundle, threads: int | None) -> Callable[[], Fitter] | None:
        """Factory of the fit, if one is asked for."""
        if self.fit is None:
            return None
        from jotr_deploy.fitting.picture_fitter import PictureFitter

        chosen = FitChoice(self.fit)
        return lambda: PictureFitter(bundle, chosen, self.device, threads)
