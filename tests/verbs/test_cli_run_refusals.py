"""`run` refuses: cause, remedy, exit code 2, nothing half-written, and what was there before untouched."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from pictures import person, picture, video, write

from jotr_deploy.bundle import Manifest, open_bundle, write_manifest

Refused = Callable[..., tuple[str, str]]

AGAIN = "export it again: jotr-deploy export CHECKPOINT -o BUNDLE"
MAKE = "make one: jotr-deploy export CHECKPOINT -o BUNDLE; or use the bundle of this package: starter"
PICTURES = "pictures are read as JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, HEIC, JPEG 2000, PBM, PGM and PPM"
FILMS = f"{PICTURES}; films as FFmpeg reads them"
WHOLE = "download or copy it again, and compare its size with that of the original"
SOURCES = "give an image, a folder, a glob in quotes such as 'folder/*.png', a video, a camera number or a URL"
LAYOUTS = "give COCO or AlphaPose results, OpenPose files, or the .npz that --save-2d writes; see docs/joints.md"
BOXES = "give [[x0, y0, x1, y1], ...], {image name: [[x0, y0, x1, y1], ...]}, or COCO results with bbox and image_id"
LENGTHS = (
    "known lengths: 42 (crowdpose14), 51 (coco17), 54 (coco18), 75 (body25), 78 (halpe26), 90 (smpl30), "
    "99 (blazepose33)"
)


def flip_a_byte(bundle: Path) -> None:
    data = bytearray((bundle / "mesh.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "mesh.onnx").write_bytes(data)


def edit(bundle: Path, **changes: Any) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    write(bundle / "bundle.json", {**content, **changes})


def without_body(bundle: Path) -> None:
    """The manifest of an export without a body, over a network without meshes."""
    import onnx

    proto = onnx.load(bundle / "mesh.onnx")
    keep = [output for output in proto.graph.output if output.name in ("joints_img", "pose", "betas", "cam")]
    del proto.graph.output[:]
    proto.graph.output.extend(keep)
    onnx.save(proto, bundle / "mesh.onnx")
    from jotr_deploy.bundle import sha256_of

    manifest = open_bundle(bundle).manifest
    mesh = manifest.files[0].model_copy(update={"sha256": sha256_of(bundle / "mesh.onnx")})
    (bundle / "faces.npy").unlink()
    write_manifest(bundle, Manifest(**{**dict(manifest), "files": (mesh,)}))


@pytest.mark.parametrize(
    ("damage", "cause", "remedy"),
    [
        pytest.param(flip_a_byte, "{bundle}/mesh.onnx: the file has changed since it was made (sha256 differs)", AGAIN,
                     id="changed byte"),
        pytest.param(lambda b: (b / "mesh.onnx").unlink(),
                     "{bundle}: mesh.onnx is listed in the manifest but missing", AGAIN, id="missing mesh"),
        pytest.param(lambda b: (b / "faces.npy").unlink(),
                     "{bundle}: faces.npy is listed in the manifest but missing", AGAIN, id="missing faces"),
        pytest.param(lambda b: edit(b, format=5), "{bundle}: bundle format 5, this version reads up to 4",
                     "upgrade: git pull, then pip install . in a clone of jotr-deploy", id="newer"),
        pytest.param(lambda b: edit(b, colour="red"), "{bundle}/bundle.json: colour: Extra inputs are not permitted",
                     AGAIN, id="unknown field"),
        pytest.param(lambda b: edit(b, files=[]), "{bundle}: the bundle has no mesh file", AGAIN, id="no files"),
        pytest.param(lambda b: write(b / "bundle.json", "{'a': 1}"),
                     "{bundle}/bundle.json: not readable (Expecting property name enclosed in double quotes: line 1"
                     " column 2 (char 1))", AGAIN, id="not JSON"),
        pytest.param(lambda b: write(b / "bundle.json", "[" * 100_000),
                     "{bundle}/bundle.json: not readable (maximum recursion depth exceeded while decoding a JSON array"
                     " from a unicode string)", AGAIN, id="hostile JSON"),
        pytest.param(lambda b: write(b / "bundle.json", "[]"),
                     "{bundle}/bundle.json: manifest: Input should be a valid dictionary or instance of Manifest",
                     AGAIN, id="no manifest"),
        pytest.param(lambda b: (b / "bundle.json").unlink(), "{bundle}: not a bundle (no bundle.json)", MAKE,
                     id="no bundle"),
        pytest.param(shutil.rmtree, "{bundle}: no such folder",
                     "check the path, or use starter, the bundle inside this package", id="nothing"),
        pytest.param(lambda b: (shutil.rmtree(b), b.write_text("x")), "{bundle}: not a bundle (it is plain text)", MAKE,
                     id="a file"),
        pytest.param(without_body, "{bundle}/mesh.onnx: exported with --no-body, it makes no meshes",
                     "export it again without --no-body", id="without a body"),
    ],
)  # fmt: skip
def test_bundles(refused: Refused, place: Path, damage: Callable[[Path], Any], cause: str, remedy: str) -> None:
    damage(place / "bundle")
    assert refused() == (cause.format(bundle=place / "bundle"), remedy)


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        pytest.param("not json", "not JSON (Expecting value: line 1 column 1 (char 0))", LAYOUTS,
                     id="not JSON"),
        pytest.param('[{"image_id": "pho', "the JSON ends too early: the file is truncated (Unterminated string"
                     " starting at: line 1 column 15 (char 14))", "write the file again", id="truncated"),
        pytest.param({"a": 1}, "not a known keypoint layout (its keys are 'a')", LAYOUTS, id="other JSON"),
        pytest.param([person("photo.png"), person("photo.png", joints=19)],
                     "person 1: 57 numbers match no skeleton", LENGTHS, id="unknown skeleton"),
        pytest.param([person("other.png"), person(7)],
                     "no entry matches 'photo.png' (the file names 'other.png', 7)",
                     "give the file made from this source; images are matched by file name, video frames by 0-based"
                     " number", id="another image"),
    ],
)  # fmt: skip
def test_keypoint_files(refused: Refused, place: Path, content: Any, cause: str, remedy: str) -> None:
    path = write(place / "joints.json", content)
    assert refused("--keypoints", path) == (f"{path}: {cause}", remedy)


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        ([[100, 10, 140, 50]],
         "person 0 of 'photo.png': box (100, 10, 140, 50) lies outside the image of 80 x 60 px",
         "boxes are x0, y0, x1, y1 in pixels of the image; in COCO results x, y, width, height"),
        ([[40, 40, 10, 10]], "person 0: box (40, 40, 10, 10) is inverted",
         "a box is given by its corners x0, y0, x1, y1; give boxes of x, y (top left), width, height as COCO results"),
        ([[0, 0, 10, 10], [-1e38, -1e38, 3e38, 3e38]],
         "person 1: box (-1e+38, -1e+38, 3e+38, 3e+38) contains NaN or infinity", BOXES),
        ({"other.png": [[0, 0, 9, 9]]}, "no entry matches 'photo.png' (the file names 'other.png')",
         "give the file made from this source; images are matched by file name, video frames by 0-based number"),
    ],
)  # fmt: skip
def test_box_files(refused: Refused, place: Path, content: Any, cause: str, remedy: str) -> None:
    path = write(place / "boxes.json", content)
    assert refused("--boxes", path) == (f"{path}: {cause}", remedy)


@pytest.mark.parametrize(
    ("options", "cause", "remedy"),
    [
        (["--keypoints", "k.json", "--boxes", "b.json"], "both keypoints and boxes are given",
         "give one: keypoints define their own boxes"),
        (["--keypoints", "nowhere.json"], "nowhere.json: no such file or folder", "check the path"),
        (["--keypoints", "k.json", "--skeleton", "coco"], "unknown skeleton 'coco'",
         "known: blazepose33, body25, coco17, coco18, crowdpose14, halpe26, smpl30"),
        (["--keypoints", "x" * 300], "x" * 300 + ": File name too long", "check the path and its permissions"),
        (["--skeleton", "coco17"], "--skeleton needs --keypoints",
         "add the keypoint file, or leave --skeleton out"),
        (["--device", "gpu"], "--device: 'gpu' is not known", "give one of auto, cpu, cuda"),
        (["--threads", "0"], "Invalid value for '--threads': ", "see jotr-deploy run --help"),
        (["-Z"], "No such option: -Z", "see jotr-deploy run --help"),
    ],
)  # fmt: skip
def test_options(refused: Refused, place: Path, options: list[str], cause: str, remedy: str) -> None:
    found_cause, found_remedy = refused(*options)
    assert found_cause == cause if not cause.endswith(": ") else found_cause.startswith(cause)
    assert found_remedy == remedy


def test_cuda_that_is_not_there(refused: Refused, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert refused("--device", "cuda") == (
        "this ONNX Runtime has no CUDA",
        "use --device cpu, or pip uninstall onnxruntime and pip install '.[gpu]' in a clone of jotr-deploy",
    )  # fmt: skip


def test_no_onnx_runtime(refused: Refused, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "onnxruntime" else find(n, *a))
    assert refused() == ("run needs onnxruntime", "pip install '.[cpu]' in a clone of jotr-deploy")


def without_samples(path: Path) -> None:
    """A video whose table of frames points at nothing."""
    data = bytearray(video(path, 1).read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)


def cut(path: Path, make: Callable[[Path], Any], share: float) -> None:
    make(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@pytest.mark.parametrize(
    ("source", "make", "cause", "remedy"),
    [
        ("gone.png", lambda _: None, "no such file or folder", SOURCES),
        ("empty.jpg", lambda p: p.touch(), "the file is empty", "give an image or a video"),
        ("text.jpg", lambda p: p.write_text("hello"), "plain text, not a supported picture or film", FILMS),
        ("cut.png", lambda p: cut(p, picture, 0.5), "the PNG picture is cut off", "copy or download it again"),
        ("folder", Path.mkdir, "no images in this folder", PICTURES),
        ("folder/*.png", lambda p: p.parent.mkdir(), "no file matches", "check the pattern, and put it in quotes"),
        ("cut.mp4", lambda p: cut(p, video, 0.5),
         "an MP4 video without its index (an unfinished recording or download)",
         f"{WHOLE}; untrunc repairs a recording that was cut short, from an intact one of the same camera"),
        ("void.mp4", without_samples, "the video has no frame that can be read",
         "check that a video player shows it"),
        ("notes.txt", lambda p: p.write_text("hello"), "plain text, not a supported picture or film", FILMS),
        ("x" * 300 + ".png", lambda _: None, "cannot be read (File name too long)",
         "check the path and its permissions"),
    ],
)  # fmt: skip
def test_sources(
    refused: Refused, place: Path, source: str, make: Callable[[Path], Any], cause: str, remedy: str
) -> None:
    make(place / source)
    assert refused(source=source) == (f"{place / source}: {cause}", remedy)


def test_a_bad_image_in_the_middle_of_a_folder(refused: Refused, place: Path) -> None:
    (place / "photos").mkdir()
    picture(place / "photos" / "1.png")
    (place / "photos" / "2.png").write_text("hello")
    picture(place / "photos" / "3.png")
    cause = f"{place / 'photos' / '2.png'}: plain text, not a supported picture"
    assert refused(source="photos", output="deep/new") == (cause, PICTURES)


@pytest.mark.parametrize(
    ("verb", "remedy"),
    [
        (("run",), "it contains boxes: give it as --boxes"),
        (("bench", "--source"), "it contains boxes: give it as --boxes (bench has no --boxes)"),
        (("calibrate", "--images"), "it contains boxes: give it as --boxes (calibrate has no --boxes)"),
    ],
)
def test_an_option_that_this_verb_lacks_is_not_advised_without_saying_so(
    cli: Callable[..., Any], place: Path, verb: tuple[str, ...], remedy: str
) -> None:
    boxes = write(place / "boxes.json", [{"image_id": 1, "bbox": [1, 2, 30, 40], "score": 0.9, "category_id": 1}])
    name, *option = verb
    output = [] if name == "bench" else ["-o", place / "new"]
    outcome = cli(name, place / "bundle", *option, place / "photo.png", "--keypoints", boxes, *output)
    assert outcome.mistake == (f"{boxes}: person 0: has no 'keypoints'", remedy)


@pytest.mark.parametrize(
    ("arguments", "remedy", "note"),
    [
        (["serve"], "choose another -o", " (serve has no -o)"),
        (["eval"], "use --keep-going and --strict", " (eval has no --keep-going and no --strict)"),
        (["run"], "export it again without --no-body; or use --device cpu", ""),
        (["bench"], "pip install --upgrade x", ""),
        (["train"], "see jotr-deploy run --help", ""),
        (["plugins", "build"], "give --nothing", ""),
        (["nothing"], "give --nothing", ""),
        ([], "give --nothing", ""),
    ],
)
def test_the_note_is_about_the_options_of_the_verb_alone(arguments: list[str], remedy: str, note: str) -> None:
    from jotr_deploy.cli import application, lacking_options

    assert lacking_options(application(*arguments[:1]), arguments, remedy) == note
