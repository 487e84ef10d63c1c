"""The paper's numbers, spot by spot."""

from __future__ import annotations

import pytest

from jotr_deploy.evaluation.published.paper_rows import PAPER_3DNBF, PUBLISHED, PublishedRow
from jotr_deploy.support.choices import SPLITS


def test_every_row_is_of_a_set_that_is_evaluated() -> None:
    assert list(PUBLISHED) != []
    assert PUBLISHED.keys() <= SPLITS.keys()
    for published in PUBLISHED.values():
        assert len({row.method for row in published.rows}) == len(published.rows)
        if published.paper == PAPER_3DNBF:
            continue
        assert published.rows[-1].method == "JOTR"
        assert any(row.method.startswith("3DCrowdNet") for row in published.rows)


@pytest.mark.parametrize(
    ("protocol", "table", "people", "rows", "jotr", "first"),
    [
        ("3dpw", "Table 2", 35515, 13, (76.4, 48.7, 92.6), PublishedRow("HMR", 130.0, 76.7, None)),
        ("3dpw-oc", "Table 1", 20243, 8, (75.7, 52.2, 92.6), PublishedRow("I2L-MeshNet", 92.0, 61.4, 129.5)),
        ("3dpw-pc", "Table 1", 2218, 7, (86.5, 58.3, 109.7), PublishedRow("I2L-MeshNet", 117.3, 80.0, 160.2)),
        ("3dpw-crowd", "Table 1", 1923, 7, (82.4, 52.0, 103.4), PublishedRow("I2L-MeshNet", 115.7, 73.5, 162.0)),
        ("3doh", "Table 1", 1290, 5, (98.7, 59.3, 104.8), PublishedRow("SPIN", 110.5, 71.6, 124.2)),
    ],
)
def test_rows(protocol: str, table: str, people: int, rows: int, jotr: tuple[float, ...], first: PublishedRow) -> None:
    published = PUBLISHED[protocol]
    assert (published.table, published.people, len(published.rows)) == (table, people, rows)
    assert published.rows[-1] == PublishedRow("JOTR", *jotr)
    assert published.rows[0] == first


def test_rows_of_3dnbf() -> None:
    published = PUBLISHED["3dpw-occ-3dnbf"]
    assert (published.table, published.people, published.paper) == ("Table 1", None, PAPER_3DNBF)
    assert [row.method for row in published.rows] == ["SPIN", "HMR-EFT", "Mesh Graphormer", "PARE", "3DNBF"]
    assert published.rows[0] == PublishedRow("SPIN", 97.5, 60.8, None)
    assert published.rows[-1] == PublishedRow("3DNBF", 77.2, 51.2, None)
