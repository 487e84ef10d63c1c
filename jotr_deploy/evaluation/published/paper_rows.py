"""Published results, printed beside ours: those of the JOTR paper, and for 3DPW-Occ those of 3DNBF. Millimetres."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "JOTR, arXiv 2307.16377"
PAPER_3DNBF = "3DNBF, arXiv 2308.10123"


@dataclass(frozen=True)
class PublishedRow:
    """One method; None where the paper has no number."""

    method: str
    mpjpe_mm: float | None
    pa_mpjpe_mm: float | None
    pve_mm: float | None


@dataclass(frozen=True)
class Published:
    """The rows of one benchmark."""

    table: str
    people: int | None  # number of people in the paper; None where it is not known
    rows: tuple[PublishedRow, ...]
    paper: str = PAPER


_Numbers = tuple["float | None", "float | None", "float | None"]  # MPJPE, PA-MPJPE, PVE
_NONE: _Numbers = (None, None, None)

# Table 1, in the order of `_TABLE_1_SETS`. PARE is the one with HRNet-32, the others have ResNet-50.
_TABLE_1_SETS = ("3dpw-oc", "3doh", "3dpw-pc", "3dpw-crowd")
_TABLE_1: dict[str, tuple[_Numbers, _Numbers, _Numbers, _Numbers]] = {
    "I2L-MeshNet": ((92.0, 61.4, 129.5), _NONE, (117.3, 80.0, 160.2), (115.7, 73.5, 162.0)),
    "SPIN": ((95.5, 60.7, 121.4), (110.5, 71.6, 124.2), (122.1, 77.5, 159.8), (121.2, 69.9, 144.1)),
    "PyMAF": ((89.6, 59.1, 113.7), (101.6, 67.7, 116.6), (117.5, 74.5, 154.6), (115.7, 66.4, 147.5)),
    "ROMP": ((91.0, 62.0, None), _NONE, (98.7, 69.0, None), (104.8, 63.9, 127.8)),
    "OCHMR": ((112.2, 75.2, 145.9), _NONE, _NONE, _NONE),
    "PARE (HRNet-32)": ((83.5, 57.0, 101.5), (109.0, 63.8, 117.4), (96.8, 64.5, 122.4), (94.9, 57.5, 117.6)),
    "3DCrowdNet": ((83.5, 57.1, 101.5), (102.8, 61.6, 111.8), (90.9, 64.4, 114.8), (85.8, 55.8, 108.5)),
    "JOTR": ((75.7, 52.2, 92.6), (98.7, 59.3, 104.8), (86.5, 58.3, 109.7), (82.4, 52.0, 103.4)),
}

# Table 2: the test part of 3DPW, by methods that were not trained on 3DPW.
_TABLE_2: dict[str, _Numbers] = {
    "HMR": (130.0, 76.7, None),
    "Kanazawa et al.": (116.5, 72.6, 139.3),
    "GCMR": (None, 70.2, None),
    "DSD-SATN": (None, 69.5, None),
    "SPIN": (96.9, 59.2, 116.4),
    "I2L-MeshNet": (93.2, 58.6, 136.5),
    "PyMAF": (92.8, 58.9, 110.1),
    "OCHMR": (89.7, 58.3, 107.1),
    "EFT": (None, 54.2, None),
    "ROMP": (89.3, 53.5, 105.6),
    "PARE": (82.9, 52.3, 99.7),
    "3DCrowdNet": (81.7, 51.2, 98.3),
    "JOTR": (76.4, 48.7, 92.6),
}

# Table 1 of 3DNBF, all with ResNet-50; over the visible joints of everybody, and without a PVE.
_TABLE_1_3DNBF: dict[str, _Numbers] = {
    "SPIN": (97.5, 60.8, None),
    "HMR-EFT": (95.8, 57.1, None),
    "Mesh Graphormer": (116.8, 75.7, None),
    "PARE": (86.8, 58.8, None),
    "3DNBF": (77.2, 51.2, None),
}

# Evaluated people, from the supplement.
_PEOPLE = {"3dpw-oc": 20243, "3doh": 1290, "3dpw-pc": 2218, "3dpw-crowd": 1923}


def _rows(numbers: dict[str, _Numbers]) -> tuple[PublishedRow, ...]:
    return tuple(PublishedRow(method, *row) for method, row in numbers.items() if row != _NONE)


PUBLISHED: dict[str, Published] = {
    "3dpw": Published("Table 2", 35515, _rows(_TABLE_2)),
    **{
        name: Published("Table 1", _PEOPLE[name], _rows({method: row[place] for method, row in _TABLE_1.items()}))
        for place, name in enumerate(_TABLE_1_SETS)
    },
    "3dpw-occ-3dnbf": Published("Table 1", None, _rows(_TABLE_1_3DNBF), PAPER_3DNBF),
}
"""Published rows by protocol, a key of `choices.SPLITS`; sets that the paper does not report have none."""
