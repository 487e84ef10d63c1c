import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from jotr_deploy.errors import KeypointFileError
from jotr_deploy.runtime.joint_files.image_index import ImageIndex, image_stem, trailing_number
from jotr_deploy.runtime.sources.frame_source import FrameSource
from jotr_deploy.runtime.sources.opening import VideoWriter, open_source

REMEDY = "give the file made from this source; images are matched by file name, video frames by 0-based number"


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
        (["a/1.jpg", "v/1.jpg"], {"name": "v/v_000000000001", "frame": 1}, 1),  # of two videos
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
    index_of(*keys).match(source_of(what))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("what", "keys", "cause"),
    [
        (["a.png"], ["x.png"], "k.json: no entry matches 'a.png' (the file names 'x.png')"),
        (
            ["a.png"],
            ["x.png", "y.png", 3, 4],
            "k.json: no entry matches 'a.png' (the file names 'x.png', 'y.png', 3, ...)",
        ),
        ("video", [3, 4], "k.json: no entry matches 'v.mp4' (the file names 3, 4)"),
    ],
)
def test_files_that_belong_to_something_else(source_of, what, keys, cause):
    with pytest.raises(KeypointFileError) as caught:
        index_of(*keys).match(source_of(what))
    assert (caught.value.cause, caught.value.remedy) == (cause, REMEDY)


@pytest.mark.parametrize(("what", "count"), [("video", 3), (["a.png", "b.png"], 2)])
def test_a_file_without_names_is_about_one_image(source_of, what, count):
    source = source_of(what)
    with pytest.raises(KeypointFileError) as caught:
        index_of(None).match(source)
    assert caught.value.cause == f"k.json: names no image, but '{source.name}' has {count}"
    assert caught.value.remedy == "write the image name in every entry"


@pytest.mark.parametrize("keys", [[1, 2, 3], ["1.jpg", "2.jpg", "3.jpg"]])
def test_frames_numbered_to_their_count_are_counted_from_1(source_of, caplog, keys):
    found = index_of(*keys).match(source_of("video"))
    assert [found.rows(f"v_{frame:012d}", frame) for frame in range(3)] == [[0], [1], [2]]
    assert caplog.messages == ["k.json: frames are numbered 1 to 3, assumed to be counted from 1"]


def test_frames_beyond_the_end_are_told(source_of, caplog):
    index_of(2, 4).match(source_of("video"))
    assert caplog.messages == [
        "k.json: has an entry for frame 4, but the last frame of 'v.mp4' is 2; frames are counted from 0"
    ]


def test_our_own_files_count_stills_by_position(source_of):
    source = source_of(["a7.png", "b9.png"])
    index = index_of(0, 1, by_position=True)
    assert index.match(source).rows("b9.png", 1) == [1]


@pytest.mark.parametrize("keys", [["a.png", "a.bmp"], ["a/x/a.jpg", "b/y/a.jpg"]])
def test_two_entries_that_fit_equally_well_are_an_error(keys):
    with pytest.raises(KeypointFileError) as caught:
        index_of(*keys).find("a.jpg" if keys[0] == "a.png" else "c/a.jpg")
    assert caught.value.cause == f"k.json: 'a.jpg' matches '{keys[0]}' and '{keys[1]}'"
    assert caught.value.remedy == "write the picture's file name as image_id, with its folder if names repeat"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (unicodedata.normalize("NFD", "Grüße.jpg"), unicodedata.normalize("NFC", "Grüße.jpg")),
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")),
        ("C:\\data\\clip 1\\a.jpg", "a.jpg"),
        ("a.JPG", "a.jpeg"),
        ("./b/a.jpg", "/home/b/a.jpg"),
    ],
)
def test_names_written_in_another_way(key, name):
    assert index_of(key).find(name) == [0]


def folders(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((2, 2, 3), np.uint8))
    return open_source(str(tmp_path / "*" / "*.png"))


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        (["x/a.png", "y/a.png"], [[0], [1]]),
        (["y\\a.png", "x\\a.png"], [[1], [0]]),
        (["/old/y/a.png"], [None, [0]]),
    ],
)
def test_among_pictures_of_one_name_the_folders_decide(tmp_path, keys, rows):
    found = index_of(*keys).match(folders(tmp_path, "x/a.png", "y/a.png"))
    assert [found.rows("a.png", at) for at in range(2)] == rows


def test_a_name_that_two_pictures_have_is_an_error(tmp_path):
    with pytest.raises(KeypointFileError) as caught:
        index_of("a.png").match(folders(tmp_path, "x/a.png", "y/a.png"))
    assert caught.value.cause == f"k.json: 'a.png' could be '{tmp_path}/x/a.png' or '{tmp_path}/y/a.png'"


FROM = "k.json: image ids are interpreted as positions of the pictures in the source, from"


@pytest.mark.parametrize(
    ("names", "ids", "rows", "told"),
    [
        (["f_1.png", "f_2.png", "f_3.png"], [0, 1, 2], [[0], [1], [2]], [f"{FROM} 0"]),
        (["f_0.png", "f_1.png", "f_2.png"], [1, 2, 3], [[0], [1], [2]], [f"{FROM} 1"]),
        (["a.png", "b.png"], [1, 2], [[0], [1]], [f"{FROM} 1"]),
        (["a.png"], [0], [[0]], [f"{FROM} 0"]),
        (["f_1.png", "f_2.png"], [1, 2], [[0], [1]], []),  # those in the names
        (["f_0.png", "f_1.png"], [1], [None, [0]], []),
        (["139.png", "285.png"], [285, 632, 139], [[2], [0]], []),
        (["f_1.png", "f_2.png"], ["1", "2"], [[0], [1]], []),
    ],
)
def test_numbers_of_stills(source_of, caplog, names, ids, rows, told):
    found = index_of(*ids).match(source_of(names))
    assert [found.rows(name, at) for at, name in enumerate(names)] == rows
    assert caplog.messages == told


@pytest.mark.parametrize(
    ("names", "ids"), [(["f_1.png", "f_2.png", "f_3.png"], [1, 2]), (["a.png", "b.png", "c.png"], [1, 2])]
)
def test_numbers_that_may_count_from_0_or_from_1_are_an_error(source_of, names, ids):
    with pytest.raises(KeypointFileError) as caught:
        index_of(*ids).match(source_of(names))
    assert caught.value.cause == (
        "k.json: numbers 1 to 2 could be positions in the source, from 0 or from 1,"
        " or the numbers in the pictures' names"
    )


def test_numbers_that_belong_to_no_still(source_of):
    with pytest.raises(KeypointFileError) as caught:
        index_of(0, 1).match(source_of(["a.png"]))
    assert caught.value.cause == "k.json: no entry matches 'a.png' (the file names 0, 1)"
    assert caught.value.remedy.startswith("a number must be in the picture's name or be its 0-based position; write")


class Guessed(FrameSource):
    """A film whose container counts 9 frames, and that has 10."""

    kind, name, fps, total, count, every, size_px = "video", "walk.mkv", 10.0, 9, 9, 1, (4, 4)

    def settle_total(self):
        self.total = 10
        return 10

    def frame_names(self):
        return (f"walk_{index:012d}" for index in range(self.total))

    def _frames(self):
        yield from ()


@pytest.mark.parametrize("keys", [range(1, 10), range(10), range(9)])
def test_a_guessed_number_of_frames_shifts_nothing(keys, caplog):
    belonging = index_of(*keys).match(Guessed())
    assert [belonging.rows("", at) for at in keys] == [[row] for row in range(len(keys))]
    assert caplog.messages == []


def test_a_list_of_all_pictures_has_as_many_as_the_source(caplog):
    assert index_of(*range(10), by_position=True, complete=True).match(Guessed()).rows("", 9) == [9]
    with pytest.raises(KeypointFileError, match=r"lists 5 pictures, but 'walk\.mkv' has 10"):
        index_of(*range(5), by_position=True, complete=True).match(Guessed())


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["run_000.jpg", "run_001.jpg"], True),
        (["walk_000.jpg", "run_001.jpg"], False),
        (["walk/000.jpg", "run/000.jpg"], False),
        (["frame_000.jpg"], False),
        (["0.jpg"], False),
        ([0], False),
    ],
)
def test_entries_named_after_another_film_are_told(keys, told, caplog):
    index_of(*keys).match(Guessed())
    assert any("not named after 'walk.mkv'" in text for text in caplog.messages) == told


def test_one_number_is_not_that_of_two_pictures(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "7.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(KeypointFileError, match=r"7 could be '7\.png' or '7\.png'"):
        index_of(7).match(open_source(f"{tmp_path}/*/7.png"))
