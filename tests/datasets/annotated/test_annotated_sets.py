"""Every set in miniature is read into the values that were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from miniature import KNOWN, SIZE_PX, betas, pose_rad, trans_m, write_miniature

from jotr_deploy.datasets.annotated.pictures import read_picture
from jotr_deploy.datasets.annotated.sets import SETS, read_set

per_split = pytest.mark.parametrize(("name", "split"), KNOWN)


def test_every_split_of_every_set_has_a_miniature() -> None:
    assert list(KNOWN) == [(name, split) for name, known in SETS.items() for split in known.splits]


@per_split
def test_people_are_read_as_written(name: str, split: str, tmp_path: Path) -> None:
    write_miniature(name, tmp_path)
    people = read_set(name, tmp_path, split)
    assert [person.key for person in people] == [known.key for known in KNOWN[name, split]]
    for person, known in zip(people, KNOWN[name, split], strict=True):
        assert person.image == tmp_path / known.image
        assert person.size_px == SIZE_PX
        assert (person.sequence, person.frame) == (known.sequence, known.frame)
        assert read_picture(person).shape == (*SIZE_PX[::-1], 3)
        assert (person.fit is None) == (known.fit is None)
        if person.fit is not None and known.fit is not None:
            np.testing.assert_allclose(person.fit.pose_rad, pose_rad(known.fit), atol=1e-6)
            np.testing.assert_allclose(person.fit.betas, betas(known.fit), atol=1e-6)
            np.testing.assert_allclose(person.fit.trans_m, trans_m(known.fit), atol=1e-6)
            assert person.fit.gender == known.gender
