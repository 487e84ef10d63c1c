"""Every reader on files of which some bytes are wrong: it reads them or refuses them, and nothing else is raised."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jotr_deploy.body.smpl import load_body, load_head_top
from jotr_deploy.body.tensors import read_tensors
from jotr_deploy.body.vposer import load_vposer
from jotr_deploy.bundle import open_bundle
from jotr_deploy.datasets.published.json_entries import each_entry
from jotr_deploy.errors import BodyFileError, CheckpointError, JotrDeployError
from jotr_deploy.model.checkpoint import build_model, load_checkpoint
from jotr_deploy.runtime.joint_files.box_file import read_boxes
from jotr_deploy.runtime.joint_files.keypoint_file import read_keypoints
from jotr_deploy.runtime.sessions import open_session
from jotr_deploy.runtime.sources.images import read_image
from jotr_deploy.support.read_errors import read_onnx
from jotr_deploy.training.run_config import read_config
from jotr_deploy.visual.result_files import read_people

EACH = 60
JOINTS = [1.0, 2.0, 0.5] * 17
COCO = [{"image_id": 1, "category_id": 1, "keypoints": JOINTS, "score": 0.9, "bbox": [1, 2, 3, 4]}]
OPENPOSE = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": [1.0, 2.0, 0.5] * 25}]}
MANIFEST = {"format": 1, "model": {"heads": 8}, "source_sha256": "0", "labels": ["a"],
            "files": [{"role": "mesh", "name": "mesh.onnx", "sha256": "0", "recipe": {"a": [1]}}]}  # fmt: skip
TOML = 'task = "mesh"\nsteps = 10\nbatch = 2\nlr = 1e-3\n[mesh]\nprior = "p"\n'


def torch_file(content: Any, archive: bool) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=archive)


def text(content: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(content if isinstance(content, str) else json.dumps(content))


def network(path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("input_1", "output_1"))
    weights = numpy_helper.from_array(np.ones(3, np.float32), "weights")
    node = helper.make_node("Add", ["input_1", "weights"], ["output_1"], name="node")
    graph = helper.make_graph([node], "graph", [x], [y], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)


def array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros((4, 50)))


def arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, v_template=np.zeros((3, 3)), kintree_table=np.zeros((2, 24)), f=np.zeros(3, np.int32))


def joints_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, joints=np.ones((2, 17, 3)), frame=np.arange(2), skeleton=np.array("coco17"))


def body_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"v_template": np.zeros((3, 3)), "f": np.zeros((3, 3)), "name": "x"}, 2))


def built(path: Path) -> None:
    build_model(load_checkpoint(path), None)


STATE = {"network": {"module.backbone.conv1.weight": torch.zeros(4, 3), "epoch": torch.tensor(1)}, "epoch": 3}
OURS = {"format": "jotr-deploy/1", "config": {"heads": 8, "d_model": 256}, "weights": {"a": torch.zeros(3)}}
DECODER = {"bodyprior_dec_fc1.weight": torch.zeros(5, 4), "bodyprior_dec_fc1.bias": torch.zeros(5)}
Read = Callable[[Path], object]
READERS: dict[str, tuple[str, Callable[[Path], object], Read]] = {
    "published checkpoint": ("c.pth.tar", torch_file(STATE, True), built),
    "old-style checkpoint": ("c.pth.tar", torch_file(STATE, False), built),
    "own checkpoint": ("c.pt", torch_file(OURS, True), built),
    "old-style own checkpoint": ("c.pt", torch_file(OURS, False), built),
    "VPoser": ("v.pt", torch_file(DECODER, True), load_vposer),
    "old-style VPoser": ("v.pt", torch_file(DECODER, False), load_vposer),
    "body .npz": ("b.npz", arrays, load_body),
    "body .pkl": ("b.pkl", body_pickle, load_body),
    "regressor": ("r.npy", array, load_head_top),
    "network": ("n.onnx", network, read_onnx),
    "network in ONNX Runtime": ("n.onnx", network, lambda path: open_session(path, "onnxruntime", "cpu").close()),
    "network in OpenVINO": ("n.onnx", network, lambda path: open_session(path, "openvino", "cpu").close()),
    "manifest": ("bundle.json", text(MANIFEST), lambda path: open_bundle(path.parent)),
    "picture": ("p.png", lambda path: cv2.imwrite(str(path), np.zeros((9, 9, 3), np.uint8)), read_image),
    "JPEG": ("p.jpg", lambda path: cv2.imwrite(str(path), np.zeros((9, 9, 3), np.uint8)), read_image),
    "COCO results": ("k.json", text(COCO), read_keypoints),
    "OpenPose": ("k_keypoints.json", text(OPENPOSE), read_keypoints),
    "joints .npz": ("k.npz", joints_npz, read_keypoints),
    "boxes": ("b.json", text({"a.jpg": [[1, 2, 3, 4], [5, 6, 7, 8]]}), read_boxes),
    "COCO boxes": ("b.json", text(COCO), read_boxes),
    "result": ("r.npz", joints_npz, read_people),
    "data set": ("s.json", text({"images": [{"id": 1, "a": [1, 2]}], "annotations": []}),
                 lambda path: list(each_entry(path))),
    "training": ("t.toml", text(TOML), read_config),
}  # fmt: skip


def mutations(whole: bytes, seed: str) -> Iterator[bytes]:
    """The file with some bytes changed, cut off, taken out, repeated, and of zeros."""
    draw = random.Random(seed)
    yield b""
    yield bytes(len(whole))
    for _ in range(EACH):
        mutated = bytearray(whole)
        for _ in range(draw.choice([1, 1, 2, 8])):
            mutated[draw.randrange(len(mutated))] = draw.choice([0, 0xFF, 0x2E, 0x80, draw.randrange(256)])
        start = draw.randrange(len(mutated))
        how = draw.randrange(8)
        if how == 0:
            del mutated[start:]
        elif how == 1:
            del mutated[start : start + 3]
        elif how == 2:
            mutated[start:start] = mutated[start : start + 9]
        yield bytes(mutated)


@pytest.mark.filterwarnings("ignore")  # of overflows and the like, from libraries
@pytest.mark.parametrize("what", READERS)
def test_a_damaged_file_is_read_or_refused(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, write, read = READERS[what]
    write(tmp_path / name)
    refused = 0
    for content in mutations((tmp_path / name).read_bytes(), what):
        (tmp_path / name).write_bytes(content)
        try:
            read(tmp_path / name)
        except JotrDeployError as error:
            refused += 1
            for line in (error.cause, error.remedy):
                assert line.strip(), content
                assert "\n" not in line, content
    assert refused > 2
    if what.startswith("network"):  # decoders of pictures print by themselves
        assert capfd.readouterr() == ("", "")


def test_an_archive_of_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    arrays(tmp_path / "b.npz")
    content = bytearray((tmp_path / "b.npz").read_bytes())
    at = content.index(b"PK\x01\x02")
    content[8:10] = content[at + 10 : at + 12] = b"\x63\0"  # method 99, in the entry and in the directory
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(BodyFileError, match="a NumPy archive"):
        load_body(tmp_path / "b.npz")


def test_a_name_that_is_no_text_is_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    network(tmp_path / "n.onnx")
    content = (tmp_path / "n.onnx").read_bytes().replace(b"input_1", b"inp\xff\xfe_1")
    (tmp_path / "n.onnx").write_bytes(content)
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(JotrDeployError):
            open_session(tmp_path / "n.onnx", backend, "cpu")
    with pytest.raises(JotrDeployError):
        read_onnx(tmp_path / "n.onnx")
    assert capfd.readouterr() == ("", "")


def test_text_is_no_pickled_code(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("checkpoint files\n")  # `c` is how a pickle asks for a class
    with pytest.raises(CheckpointError, match="not a checkpoint: it is plain text"):
        read_tensors(tmp_path / "a.pth", CheckpointError, "a checkpoint", "give one")
