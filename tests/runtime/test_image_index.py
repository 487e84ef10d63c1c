from pathlib import Path

import cv2
import numpy as np
import pytest

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageIndex, image_stem, trailing_number
from jotr_deploy.runtime.video import VideoWriter, open_source

REMEDY = "give the file made from this source; images are found by file name, frames of a video by 0-based number"


def index_of(*keys, **more):
    return ImageIndex(Path("k.json"), {key: [row] for row, key in enumerate(keys)}, **more)


@pytest.mark.parametrize(
    ("name", "stem", "number"),
    [
        ("a.jpg", "a", None),
        ("frame_0012.PNG", "frame_0012", 12),
        ("walk_000000000007", "walk_000000000007", 7),
        ("img.v2", "img.v2", 2),
        ("folder/3.png", "3", 3),
        ("", "", None),
    ],
)
def test_stems_and_numbers_of_names(name, stem, number):
    assert (image_stem(name), trailing_number(name)) == (stem, number)


@pytest.mark.parametrize(
    ("keys", "asked", "row"),
    [
        # stills
        (["a.jpg", "b.jpg"], {"name": "b.jpg"}, 1),
        (["a.jpg"], {"name": "some/where/a.jpg"}, 0),
        (["a.png"], {"name": "a.jpg"}, 0),  # another suffix
        (["a"], {"name": "a.jpg"}, 0),  # none, as of OpenPose files
        (["a.png", "a.jpg"], {"name": "a.jpg"}, 1),  # the exact name first
        (["a.png", "a.bmp"], {"name": "a.jpg"}, None),  # which of them?
        (["x1.jpg"], {"name": "x2.jpg"}, None),
        ([139, 285], {"name": "000000000285.jpg"}, 1),  # ids as in the names
        ([139, 285], {"name": "a.jpg", "image_id": 139}, 0),
        ([0], {"name": "a.jpg"}, None),
        ([None], {"name": "a.jpg"}, 0),
        ([], {"name": "a.jpg"}, None),
        # frames of a video
        ([0, 1], {"name": "v_000000000001", "frame": 1}, 1),
        (["v_000000000000", "v_000000000001"], {"name": "v_000000000001", "frame": 1}, 1),
        (["0.jpg", "1.jpg"], {"name": "v_000000000001", "frame": 1}, 1),
        (["frame_0.jpg", "frame_1.jpg"], {"name": "v_000000000001", "frame": 1}, 1),
        (["a_1.jpg", "b_1.jpg"], {"name": "v_000000000001", "frame": 1}, None),  # of two videos
        (["0.jpg"], {"name": "v_000000000001", "frame": 1}, None),
        # a number in a still's name is no frame: its neighbour must not lend its people
        (["x1.jpg"], {"name": "x2.jpg", "frame": None}, None),
    ],
)
def test_finding_an_image(keys, asked, row):
    assert index_of(*keys).find(**asked) == (None if row is None else [row])


@pytest.fixture
def source_of(tmp_path):
    def make(what):
        if what == "video":
            with VideoWriter(tmp_path / "v.mp4", 12) as writer:
                for _ in range(3):
                    writer.write(np.zeros((16, 16, 3), np.uint8))
            return open_source(tmp_path / "v.mp4")
        for name in what:
            cv2.imwrite(str(tmp_path / name), np.zeros((2, 2, 3), np.uint8))
        return open_source(tmp_path / what[0] if len(what) == 1 else tmp_path)

    return make


@pytest.mark.parametrize(
    ("what", "keys"),
    [
        (["a.png"], ["a.png"]),
        (["a.png"], ["a.png", "b.png"]),  # more than asked for
        (["a.png", "b.png"], ["b.png"]),  # nobody in one of them
        (["a.png"], []),  # nobody anywhere
        (["a.png"], [None]),
        ("video", [2]),
        ("video", ["1.jpg"]),
    ],
)
def test_files_that_belong(source_of, caplog, what, keys):
    index_of(*keys).check(source_of(what))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("what", "keys", "cause"),
    [
        (["a.png"], ["x.png"], "k.json: no entry belongs to 'a.png' (the file names 'x.png')"),
        (
            ["a.png"],
            ["x.png", "y.png", 3, 4],
            "k.json: no entry belongs to 'a.png' (the file names 'x.png', 'y.png', 3, ...)",
        ),
        (["a.png"], [0, 1], "k.json: no entry belongs to 'a.png' (the file names 0, 1)"),
        ("video", [3, 4], "k.json: no entry belongs to 'v.mp4' (the file names 3, 4)"),
    ],
)
def test_files_that_belong_to_something_else(source_of, what, keys, cause):
    with pytest.raises(KeypointFileError) as caught:
        index_of(*keys).check(source_of(what))
    assert (caught.value.cause, caught.value.remedy) == (cause, REMEDY)


@pytest.mark.parametrize(("what", "count"), [("video", 3), (["a.png", "b.png"], 2)])
def test_a_file_without_names_is_about_one_image(source_of, what, count):
    source = source_of(what)
    with pytest.raises(KeypointFileError) as caught:
        index_of(None).check(source)
    assert caught.value.cause == f"k.json: names no image, but '{source.name}' has {count}"
    assert caught.value.remedy == "write the name of its image with every entry"


@pytest.mark.parametrize("keys", [[1, 2, 3], ["1.jpg", "2.jpg", "3.jpg"]])
def test_frames_that_seem_to_be_counted_from_1_are_told(source_of, caplog, keys):
    index_of(*keys).check(source_of("video"))
    assert caplog.messages == [
        "k.json: has an entry for frame 3, but 'v.mp4' ends with frame 2; frames are counted from 0"
    ]


def test_our_own_files_count_stills_by_position(source_of):
    source = source_of(["a7.png", "b9.png"])
    index = index_of(0, 1, by_position=True)
    index.check(source)
    assert index.find("b9.png", frame=1) == [1]
