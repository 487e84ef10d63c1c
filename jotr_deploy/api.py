"""The library's front door: export a bundle, build an engine for it, evaluate it, load it as a model.

Everything here is importable from `jotr_deploy` itself; the command line calls the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jotr_deploy.errors import JotrDeployError, choice
from jotr_deploy.support.aliases import Progress, Say
from jotr_deploy.support.choices import (
    BACKENDS,
    NETWORKS,
    PIXELS_BY,
    PROTOCOLS,
    SAMPLINGS,
    SYNTHETIC,
    Backend,
    FitChoice,
    NetworkRole,
    PixelsBy,
    Sampling,
    choose_fit,
)
from jotr_deploy.support.precisions import USUAL, Precision

if TYPE_CHECKING:
    from jotr_deploy.bundle import Bundle
    from jotr_deploy.engines.derived_files import Original
    from jotr_deploy.engines.verify import Difference
    from jotr_deploy.evaluation.evaluation_result import Evaluation
    from jotr_deploy.evaluation.occlusion import OcclusionOptions
    from jotr_deploy.evaluation.published.set_result import SetEvaluation
    from jotr_deploy.export.to_bundle import Exported
    from jotr_deploy.runtime.finding.people_source import PeopleBy
    from jotr_deploy.runtime.fitting_stage import Fitter
    from jotr_deploy.runtime.loaded_model import Model


def load(
    bundle: str | Path | Bundle = "starter",
    *,
    file: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    people: PeopleBy = "auto",
    align: bool | None = None,
    camera: str | Path | None = None,
    fov_deg: float | None = None,
    focal_px: float | None = None,
    fit: str | None = None,
    vposer: str | Path | None = None,
) -> Model:
    """Load a bundle, ready for pictures and films; use it in a `with` block, or `close` it.

    Args:
        bundle: directory, or the word `starter` for the bundle inside this package.
        file: mesh network of the bundle, such as "mesh.int8.onnx"; "mesh.onnx" by default.
        device: "auto", "cpu" or "cuda".
        threads: CPU cores for the networks; all by default.
        tf32: let ONNX Runtime round float32 products to TF32 on CUDA: faster, less exact.
        people: how people are found where neither boxes nor joints are given, as `run --people`.
        align: align people to their joints; None leaves it to the bundle.
        camera: camera file for all pictures, as OpenCV writes it, or "published": a camera for each person.
        fov_deg: field of view of that camera across the longer side of the picture.
        focal_px: focal length of that camera. Without any of the three it is read from the picture's file, or guessed.
        fit: preset of a fit that follows the mesh network: "default", "release_natural" or "release_advocc"; see
            docs/fitting.md. People are then not aligned, and `People.fit` says what was done.
        vposer: VPoser v1.0 folder or snapshot: the fit is in its latent, instead of held near its start.

    Raises:
        BundleError: not a bundle, damaged, or exported without a body; without features, for a fit.
        SourceError: an invalid camera, or more than one.
        SessionError: a network that no engine on this machine opens.
        FitError, MissingDependency: no fit is possible.
        BodyFileError: not a VPoser v1.0 decoder.
    """
    fitted = choose_fit(fit, vposer, dashes="")
    from jotr_deploy.bundle import Bundle, open_bundle
    from jotr_deploy.runtime.loaded_model import Model
    from jotr_deploy.runtime.sources.scene_camera import choose_camera

    opened = bundle if isinstance(bundle, Bundle) else open_bundle(Path(bundle))
    chosen = choose_camera(camera, fov_deg, focal_px)
    return Model(
        opened, file=file, device=device, threads=threads, tf32=tf32, people=people, align=align, camera=chosen,
        fit=None if fitted is None else fitter_of(opened, fitted, device, threads),
    )  # fmt: skip


def fitter_of(
    bundle: Bundle,
    chosen: FitChoice,
    device: str = "auto",
    threads: int | None = None,
    told: Callable[[int, int, int], None] = lambda people, done, total: None,
) -> Callable[[], Fitter]:
    """Factory of the fit of a bundle, called when a model is loaded; arguments and errors as of `PictureFitter`."""
    from jotr_deploy.fitting.picture_fitter import PictureFitter

    return partial(PictureFitter, bundle, chosen, device, threads, told)


def export_bundle(
    checkpoint: str | Path | None,
    output: str | Path,
    *,
    body: str | Path | None = None,
    extra_regressor: str | Path | None = None,
    vposer: str | Path | None = None,
    with_body: bool = True,
    features: str | Path | None = None,
    sampling: Sampling = "function",
    replace: bool = False,
    say: Say = lambda step: None,
) -> Exported:
    """Turn a checkpoint into a bundle whose ONNX file is verified against PyTorch, as `jotr-deploy export`.

    Args:
        checkpoint: published JOTR checkpoint, or one of this package; None for random weights and the stand-in body.
        output: directory of the bundle.
        body: SMPL file or folder, or the word "stand-in"; by default the checkpoint's.
        extra_regressor: published `J_regressor_extra.npy`, for the head top.
        vposer: VPoser v1.0 folder; by default the checkpoint's.
        with_body: False leaves the body out; such a bundle gives poses and shapes but no meshes.
        features: weights of a run of the task `features`, for the fit; they need the body they were trained with.
        sampling: "function" keeps the sampling operator as a node with its body, "inline" uses standard operators only.
        replace: overwrite an existing bundle.
        say: see `Say`.

    Raises:
        CheckpointError, BodyFileError, FitError: a file that cannot be read or does not fit.
        VerificationError: the ONNX file differs from PyTorch by more than the limit; no bundle is left.
        OutputError: `output` exists or cannot be written.
    """
    choice("--sampling", sampling, tuple(SAMPLINGS))
    say(f"reading {'random weights' if checkpoint is None else checkpoint}")
    from jotr_deploy.export.assemble import load_network, load_stand_in
    from jotr_deploy.export.to_bundle import export_bundle as export

    if checkpoint is None:
        loaded = load_stand_in(with_body=with_body)
    else:
        loaded = load_network(Path(checkpoint), _path(body), _path(extra_regressor), _path(vposer), with_body=with_body)
    return export(loaded, Path(output), sampling, replace=replace, say=say, features=_path(features))


@dataclass(frozen=True)
class BuiltEngine:
    """A network file that `build_engine` has added to a bundle."""

    path: Path
    differences: Sequence[Difference]  # of every output from the network that it was made from
    trtexec: str | None = None  # command line that builds the same engine; None but for TensorRT
    polygraphy: str | None = None  # command line that compares it in Polygraphy; None but for TensorRT


def build_engine(
    bundle: str | Path,
    *,
    network: NetworkRole = "mesh",
    backend: Backend = "tensorrt",
    precision: Precision | str | None = None,
    output: str | Path | None = None,
    picture: str | Path | None = None,
    say: Say = lambda step: None,
    **tensorrt: Any,
) -> BuiltEngine:
    """Add a verified network file for an engine to a bundle, as `jotr-deploy build-engine`.

    Args:
        bundle: directory, or the word "starter".
        network: "mesh", "detector", "pose" or "features": which of its networks the file is made from.
        backend: engine that the file is for.
        precision: "fp32", "fp16", "bf16", or "int8" or "fp8" of a calibrated bundle; by default fp16, for
            OpenVINO bf16.
        output: leave the bundle as it is and write a copy with the new file here.
        picture: photo of people that a detector or pose network is compared on as well.
        say: see `Say`.
        tensorrt: `batch`, `plugin`, `portable`, `attention`, `workspace_bytes`, `timing_cache`, `optimization_level`
            and `progress` of `jotr_deploy.engines.tensorrt.engine.build_engine`.

    Raises:
        BundleError, MissingDependency, SessionError: the bundle, a missing package or the device rules it out.
        VerificationError: an output differs by more than the limit; the bundle is unchanged.
    """
    choice("--backend", backend, BACKENDS)
    precision = USUAL[backend] if precision is None else Precision.of(precision)
    from jotr_deploy.bundle import to_write

    original = original_network(network, picture)
    place = Path(bundle if output is None else output)
    with to_write(Path(bundle), None if output is None else Path(output)) as opened:
        if backend == "tensorrt":
            from jotr_deploy.engines.tensorrt.engine import build_engine as build

            built = build(opened, precision=precision, original=original, say=say, **tensorrt)
            lines = (line.replace(str(opened.path), str(place)) for line in (built.trtexec, built.polygraphy))
            return BuiltEngine(place / built.engine.name, built.differences, *lines)
        if tensorrt:
            raise JotrDeployError(f"{', '.join(tensorrt)}: only for TensorRT", f"leave it out for {backend}")
        if backend == "openvino":
            from jotr_deploy.engines.openvino import build_openvino as build_file
        else:
            from jotr_deploy.engines.onnxruntime import build_onnxruntime as build_file
        _, name, differences = build_file(opened, precision, say, original)
        return BuiltEngine(place / name, differences)


def original_network(network: NetworkRole, picture: str | Path | None = None) -> Original:
    """The network that `build_engine` makes a file from; for its arguments see there."""
    choice("--network", network, NETWORKS)
    if network == "mesh":
        from jotr_deploy.engines.derived_files import MESH_NETWORK

        if picture is not None:
            raise JotrDeployError("--try is for a detector or a pose network", "leave it out, or give --network")
        return MESH_NETWORK
    if network == "features":
        from jotr_deploy.calibration.derived_features import FeatureNetwork

        if picture is not None:
            raise JotrDeployError(
                "--try is for a detector or a pose network", "leave it out; features are compared on drawn people"
            )
        return FeatureNetwork()
    from jotr_deploy.third_party.derived_people import PeopleNetwork

    return PeopleNetwork(network, _path(picture))


def evaluate(
    bundle: str | Path,
    *,
    protocol: str = "synthetic",
    root: str | Path | None = None,
    h36m_regressor: str | Path | None = None,
    smpl: str | Path | None = None,
    seed: int = 1000,
    scenes: int | None = None,
    file: str | None = None,
    drift: bool = False,
    pixels: bool = False,
    people: PixelsBy | None = None,
    occlusion: OcclusionOptions | None = None,
    align: bool = False,
    fit: str | None = None,
    vposer: str | Path | None = None,
    visible_joints: bool = False,
    device: str = "auto",
    threads: int | None = None,
    tf32: bool = False,
    progress: Progress = lambda step, done, total: None,
) -> Evaluation | SetEvaluation:
    """Measure a bundle against ground truth, of held-out synthetic scenes or of a data set, as `jotr-deploy eval`.

    Args:
        bundle: directory, or the word "starter".
        protocol: "synthetic", "3dpw", "3dpw-oc", "3dpw-pc", "3dpw-crowd", "3dpw-occ-3dnbf" or "3doh".
        root: folder of the data sets; this and the next two are for data sets only, which need all three.
        h36m_regressor: `J_regressor_h36m_correct.npy`.
        smpl: folder with the SMPL files of all genders.
        seed: of the scenes, and of the resampling for the drift.
        scenes: number of synthetic scenes, 256 by default.
        file: mesh network of the bundle; "mesh.onnx" by default.
        drift: also compare every mesh file of the bundle with the fp32 one.
        pixels: also find the people from the pictures alone; synthetic scenes only.
        people: networks that find them, "detector" (the bundle's own, by default) or "blazepose" (as fetched).
        occlusion: also hide each person behind patches.
        align: align people to the given joints before measuring.
        fit: preset of a fit of everybody before measuring; the bundle needs features.
        vposer: VPoser v1.0 folder or snapshot, in whose latent they are fitted.
        visible_joints: also errors over the joints that are visible, and PCKh.
        device: "auto", "cpu" or "cuda".
        threads: CPU cores for scenes and networks; all by default.
        tf32: let ONNX Runtime round float32 products to TF32 on CUDA.
        progress: see `Progress`.

    Raises:
        JotrDeployError: an option is missing or not used by the protocol, or a file cannot be used.
    """
    from jotr_deploy.bundle import open_bundle
    from jotr_deploy.evaluation.held_out_scenes import SCENES
    from jotr_deploy.evaluation.protocols import SyntheticOptions, evaluate_synthetic

    choice("--protocol", protocol, PROTOCOLS)
    if people is not None:
        choice("--people", people, tuple(PIXELS_BY))
        if not pixels:
            raise JotrDeployError("--people is for people found in pictures", "add --pixels, or leave --people out")
    of_a_set = {"--root": root, "--h36m-regressor": h36m_regressor, "--smpl": smpl}
    of_scenes = {"--pixels": pixels or None, "--scenes": scenes}
    for option, value in (of_a_set if protocol == SYNTHETIC else of_scenes).items():
        if value is not None:
            raise JotrDeployError(f"--protocol {protocol} does not use {option}", ONE_OF_THEM)
    fitted = choose_fit(fit, vposer)
    if fitted is not None and align:
        raise JotrDeployError(
            "--fit and --align contradict each other: a fit starts from the unaligned pose", ONE_OF_THEM
        )
    if protocol == SYNTHETIC:
        drawn = SyntheticOptions(
            seed, scenes or SCENES, file, drift, pixels, people or "detector", device, threads, occlusion, align,
            fitted, visible_joints, tf32,
        )  # fmt: skip
        return evaluate_synthetic(open_bundle(Path(bundle)), drawn, progress)
    if root is None or h36m_regressor is None or smpl is None:
        option = next(option for option, value in of_a_set.items() if value is None)
        raise JotrDeployError(f"--protocol {protocol} needs {option}", _WHERE[option])
    from jotr_deploy.evaluation.published.protocol import SetOptions, evaluate_set

    files = Path(root), Path(h36m_regressor), Path(smpl)
    options = SetOptions(
        protocol, *files, seed, file, drift, device, threads, occlusion, align, fitted, visible_joints, tf32
    )
    return evaluate_set(open_bundle(Path(bundle)), options, progress)


def _path(name: str | Path | None) -> Path | None:
    return None if name is None else Path(name)


ONE_OF_THEM = "leave one of them out"
_WHERE = {
    "--root": "give the folder that holds the data sets, laid out as in docs/datasets.md",
    "--h36m-regressor": "give the published J_regressor_h36m_correct.npy, (17, 6890)",
    "--smpl": "get SMPL from https://smpl.is.tue.mpg.de and give the folder of its neutral, male and female files",
}
