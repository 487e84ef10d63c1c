"""The fit with the extractor, the kernels, the bank and the body of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from jotr_deploy.body.exported import body_graph
from jotr_deploy.body.faces import read_faces
from jotr_deploy.body.lbs import SkinnedBody
from jotr_deploy.body.smpl import BodyModel
from jotr_deploy.body.vposer import load_vposer, vposer_snapshot
from jotr_deploy.bundle import FEATURES_AGAIN, FIT_ROLES, STAND_IN_LABEL, Bundle, sha256_of
from jotr_deploy.errors import BundleError, FitError
from jotr_deploy.fitting.bank import Features, load_bank
from jotr_deploy.fitting.fit import NEAREST_M, Bodies, FitResult, fit
from jotr_deploy.fitting.fitted_people import Fits
from jotr_deploy.fitting.kernels import Kernels, fingerprint, load_kernels
from jotr_deploy.fitting.options import FitOptions
from jotr_deploy.fitting.volume import BodyVolume
from jotr_deploy.geometry.crop import PX_PER_CELL
from jotr_deploy.people import People
from jotr_deploy.runtime.body_session import weights_of
from jotr_deploy.runtime.crops import Crops
from jotr_deploy.runtime.finding.people_networks import file_for
from jotr_deploy.runtime.motion.alignment.chain import BodyArrays
from jotr_deploy.runtime.sessions import Session, open_session
from jotr_deploy.support.aliases import Array
from jotr_deploy.support.spans import Spans

MAX_BATCH = 16
"""Crops in one call of the extractor at most, so that memory stays bounded."""


class BundleFitter:
    """Fits people of the mesh stage to the features of their crops; a context manager that frees the extractor."""

    def __init__(
        self,
        bundle: Bundle,
        options: FitOptions,
        device: str = "auto",
        threads: int | None = None,
        file: str | Path | None = None,
        backend: str = "auto",
        vposer: Path | None = None,
    ) -> None:
        """Arguments as for `fitter.open_fitter`; a `file` may also be a path outside the bundle, run by `backend`."""
        self.options, self._bundle = options, bundle
        snapshot = None if vposer is None else vposer_snapshot(vposer)
        self._prior = None if snapshot is None else load_vposer(snapshot)
        self.prior_used = None if snapshot is None else _used(snapshot)
        body = body_of(bundle)
        kernels = _kernels_of(bundle, body)
        features, precision = load_bank(bundle.file("bank"))
        name = file_for(bundle, "features", device).name if file is None else file
        path = name if isinstance(name, Path) else bundle.file("features", name)
        self._session = open_session(path, backend, device, threads)
        self.name = path.name
        try:
            self.side, self.channels = _shape_of(self._session)
            self._features = _checked(features, bundle, len(kernels), self.channels)
        except BaseException:
            self._session.close()
            raise
        self._threads = 1 if threads is None else threads
        on_gpu = device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self._volume = BodyVolume(body, kernels, options.precision or precision).to(self.device)
        self._features = Features(*(each.to(self.device) for each in (features.kernels, features.clutter)))
        self._body = SkinnedBody(body)

    @property
    def files_used(self) -> list[dict[str, str]]:
        """Files of this fit, each with "role", "name" and "sha256": those of the bundle, and the pose prior."""
        entries = [self._bundle.entry(role, self.name if role == "features" else None) for role in FIT_ROLES]
        used = [{"role": each.role, "name": each.name, "sha256": each.sha256} for each in entries]
        return used if self.prior_used is None else [*used, self.prior_used]

    @property
    def cells(self) -> int:
        """Cells a side of the feature grid."""
        return self.side // PX_PER_CELL

    def seen(self, images: Array) -> Array:
        """(N, 3, side, side) float32 RGB in 0..1 -> (N, C, cells, cells) unit vectors, not checked."""
        size = min(MAX_BATCH, getattr(self._session, "max_batch", MAX_BATCH))  # an engine's own limit
        parts = [self._session({"image": images[at : at + size]})["features"] for at in range(0, len(images), size)]
        return np.concatenate(parts) if parts else np.zeros((0, self._features.kernels.shape[2], *[self.cells] * 2))

    def try_extractor(self) -> None:
        """Run the extractor on one grey crop.

        Raises:
            FitError: its features are not finite, or have another shape than it says.
        """
        features = self.seen(np.full((1, 3, self.side, self.side), 0.5, np.float32))
        if features.shape != (1, self.channels, self.cells, self.cells) or not np.isfinite(features).all():
            raise FitError(
                f"{self._session.path}: its features are not finite, or have the wrong shape", FEATURES_AGAIN
            )

    def __call__(
        self,
        crops: Crops,
        people: People,
        inside: Array | None = None,
        known: Bodies | None = None,
        told: Callable[[int, int], None] = lambda done, total: None,
        spans: Spans | None = None,
        seen: Array | None = None,
    ) -> Fits:
        """Fit people, each by themselves.

        Args:
            crops: of the same people, `side` pixels wide: `runtime.crops.make_crops(image, detections, fitter.side)`.
                Joints that `joints_mask` leaves out do not count.
            people: as the mesh stage gives them: each before the camera of their own crop, not aligned.
            inside: (N, cells, cells) bool, see `fitter.cells_inside`; all cells by default.
            known: N people as in the frame before, see `bodies_of`; NaN where there was nobody.
            told: called after every step with the steps done and all of them.
            spans: receives the stage "features" and those of a fit, `fit.STAGES`.
            seen: features of the crops, as the method of that name gives them, if they are known.

        Raises:
            FitError: the extractor gives NaN or infinity.
        """
        start = self.bodies_of(people.pose_rad, people.betas, people.translation_m)
        outside = np.full(len(people), False) if inside is None else np.logical_not(inside.any((1, 2)))
        tried = ~outside & self._before_camera(start)
        chosen = np.flatnonzero(tried)
        result = self._fit(crops, people, start, chosen, inside, known, told, spans, seen)
        return self._fits(people, tried, outside, result)

    def bodies_of(self, pose_rad: Array, betas: Array, translation_m: Array) -> Bodies:
        """People of (N, 24, 3) poses and (N, 10) shapes whose pelvis is at (N, 3) in the camera of their crop."""
        with torch.no_grad():
            joints = self._body(*_tensors(pose_rad, betas))[1]
        return Bodies(*_tensors(pose_rad, betas, translation_m - joints[:, 0].numpy()))

    def _before_camera(self, start: Bodies) -> Array:
        """(N,) bool; a start of numbers that are not finite is not before it either."""
        with torch.no_grad():
            posed = self._volume(start.pose_rad.to(self.device).double(), start.betas.to(self.device).double())
            nearest = posed.centres_m[..., 2].amin(1).cpu() + start.translation_m[:, 2]
            finite = torch.stack([torch.isfinite(each).flatten(1).all(1) for each in (start.pose_rad, start.betas)])
        return np.asarray((finite.all(0) & (nearest >= NEAREST_M)).numpy())

    def _fit(
        self,
        crops: Crops,
        people: People,
        start: Bodies,
        chosen: Array,
        inside: Array | None,
        known: Bodies | None,
        told: Callable[[int, int], None],
        spans: Spans | None,
        seen: Array | None,
    ) -> FitResult:
        confidence = np.clip(people.keypoints_px[..., 2:], 0, 1) * crops.joints_mask[..., None]
        joints = np.concatenate([crops.joints, confidence], -1)[chosen]
        with nullcontext() if spans is None else spans("features"):
            shown = self.seen(np.asarray(crops.image)[chosen]) if seen is None else seen[chosen]
        if not np.isfinite(shown).all():
            raise FitError(f"{self._session.path}: its features contain NaN or infinity", FEATURES_AGAIN)
        index = torch.from_numpy(chosen)
        own, before = start[index].to(self.device), None if known is None else known[index].to(self.device)
        cells = None if inside is None else torch.from_numpy(np.asarray(inside)[chosen]).to(self.device)
        given, map_ = (torch.from_numpy(np.asarray(each, np.float32)).to(self.device) for each in (joints, shown))
        with _torch_threads(self._threads):
            return fit(
                map_, own, self._volume, self._features, self.options, joints=given, inside=cells, known=before,
                prior=self._prior, told=told, spans=spans,
            )  # fmt: skip

    def _fits(self, people: People, tried: Array, outside: Array, result: FitResult) -> Fits:
        def spread(values: torch.Tensor, empty: float | bool) -> Array:
            array = values.detach().cpu().numpy()
            out = np.full((len(people), *array.shape[1:]), empty, array.dtype)
            out[tried] = array
            return out

        accepted = spread(result.accepted, False)
        return Fits(
            people=self._moved(people, np.flatnonzero(accepted), result),
            tried=tried,
            outside=outside,
            accepted=accepted,
            mirrored=spread(result.mirrored, False),
            warm=spread(result.warm, False),
            energy_before=spread(result.energy_before, np.nan),
            energy_after=spread(result.energy_after, np.nan),
            terms_before={name: spread(value, np.nan) for name, value in result.terms_before.items()},
            terms_after={name: spread(value, np.nan) for name, value in result.terms_after.items()},
            occlusion=spread(result.occlusion, False),
        )

    def _moved(self, people: People, index: Array, result: FitResult) -> People:
        """The people with those of an `index` as the fit has them."""
        found, bodies = result.accepted, result.bodies
        pose, betas, translation = (
            each[found].detach().float().cpu() for each in (bodies.pose_rad, bodies.betas, bodies.translation_m)
        )
        with torch.no_grad():
            vertices, joints = self._body(pose, betas)
        pelvis = joints[:, :1]
        new = {
            "pose_rad": pose,
            "betas": betas,
            "translation_m": translation + pelvis[:, 0],
            "joints_m": joints - pelvis,
            "vertices_m": vertices - pelvis,
        }
        changed = {}
        for name, values in new.items():
            array = getattr(people, name).copy()
            array[index] = values.numpy()
            changed[name] = array
        return replace(people, **changed)

    def close(self) -> None:
        """Free the extractor."""
        self._session.close()

    def __enter__(self) -> BundleFitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """A number of threads for PyTorch's operators, which are small here: several that wait for cores are far slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _used(snapshot: Path) -> dict[str, str]:
    return {"role": "vposer", "name": snapshot.name, "sha256": sha256_of(snapshot)}


def body_of(bundle: Bundle) -> BodyModel:
    """The body inside a bundle's network.

    Raises:
        BundleError: the network was exported without one, or it cannot be read back.
    """
    arrays = BodyArrays.from_graph(weights_of(body_graph(bundle)), str(bundle.path))
    count = len(arrays.template_m)
    pose_directions = arrays.pose_directions_m if arrays.pose_directions_m.size else np.zeros((count, 3, 207))
    single = {
        "v_template": arrays.template_m,
        "shapedirs": arrays.shape_directions_m,
        "posedirs": pose_directions,
        "J_regressor": arrays.regressor[:24],
        "weights": arrays.weights,
        "head_top": arrays.regressor[29],
    }
    return BodyModel(
        **{name: np.ascontiguousarray(array, np.float32) for name, array in single.items()},
        faces=np.ascontiguousarray(read_faces(bundle), np.int32),
        stand_in=STAND_IN_LABEL in bundle.manifest.labels,
    )


def _kernels_of(bundle: Bundle, body: BodyModel) -> Kernels:
    kernels = load_kernels(bundle.file("kernels"))
    if kernels.body != fingerprint(body):
        raise FitError(f"{bundle.path}: its kernels were made from another body than that of its mesh", FEATURES_AGAIN)
    return kernels


def _shape_of(session: Session) -> tuple[int, int]:
    """Side of the crop and channels of an extractor."""
    image, features = session.inputs.get("image"), session.outputs.get("features")
    shapes = [[] if each is None else list(each.shape) for each in (image, features)]
    if len(shapes[0]) == len(shapes[1]) == 4:
        side, (_, channels, rows, columns) = shapes[0][-1], shapes[1]
        whole = isinstance(side, int) and isinstance(channels, int)
        if whole and shapes[0][1:] == [3, side, side] and rows == columns == side // PX_PER_CELL:  # type: ignore[operator]
            return int(side), int(channels)
    raise BundleError(
        f"{session.path}: no feature extractor of this project (its inputs: {', '.join(session.inputs)})",
        FEATURES_AGAIN,
    )


def _checked(features: Features, bundle: Bundle, kernels: int, channels: int) -> Features:
    try:
        return features.checked(kernels, channels)
    except FitError as error:
        raise FitError(f"{bundle.path}: {error.cause}", FEATURES_AGAIN) from None


def _tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays]
