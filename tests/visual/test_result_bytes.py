"""People as the bytes of an `.npz`: what `PeopleWriter` writes into a file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from crowd import FACES, crowd

from jotr_deploy.people import People
from jotr_deploy.visual.result_bytes import npz_bytes
from jotr_deploy.visual.result_files import PeopleFile, PeopleWriter, read_people


@pytest.mark.parametrize("vertices", [True, False])
@pytest.mark.parametrize("people", [crowd([(10, 10, 50, 50), (60, 10, 90, 40)]), People.none()], ids=["two", "nobody"])
def test_an_answer_in_memory_holds_what_the_file_holds(tmp_path: Path, people: People, vertices: bool) -> None:
    file, facts = tmp_path / "a.npz", {"camera": ["EXIF, 28 mm"], "left_out": 0}
    about = {"faces": FACES, "source": "photo.jpg", "image_size_px": (100, 80), "fps": 0.0, "labels": ("a", "b")}
    with PeopleWriter(file, vertices=vertices, crop_side=128, mesh_sha256="0" * 64, **about) as writer:
        writer.append(0, people, "photo.jpg")
        writer.facts = facts
    whole = PeopleFile(people=people, frame=np.zeros(len(people), np.int64), numbers=np.zeros(1, np.int64),
                       crop_side=128, names=("photo.jpg",), times_s=np.full(1, np.nan), mesh_sha256="0" * 64,
                       facts=facts, **about)  # fmt: skip
    made = npz_bytes(whole, vertices)
    with np.load(file, allow_pickle=False) as wanted, np.load(io.BytesIO(made), allow_pickle=False) as found:
        assert sorted(found) == sorted(wanted)
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
            assert found[name].dtype == wanted[name].dtype
    assert read_people(io.BytesIO(made)).facts == facts
