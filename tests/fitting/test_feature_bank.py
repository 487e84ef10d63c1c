"""The bank moves towards what was seen, forgets old clutter first, and fits its kernels and its extractor only."""

from __future__ import annotations

import pytest
import torch

from jotr_deploy.errors import FitError
from jotr_deploy.fitting.bank import Features, MemoryBank
from jotr_deploy.fitting.rendering import unit


def bank() -> MemoryBank:
    return MemoryBank(kernels=5, bins=3, channels=4, clutter=6, seed=1)


def test_rows_are_unit_vectors_and_the_same_for_a_seed() -> None:
    assert bank().rows.shape == (5 * 3 + 6, 4)
    torch.testing.assert_close(bank().rows.norm(dim=1), torch.ones(21))
    assert torch.equal(bank().rows, bank().rows)


def test_a_row_moves_a_tenth_towards_the_mean_of_its_samples() -> None:
    made = bank()
    before = made.rows.clone()
    samples = 3 * torch.randn(3, 4, generator=torch.Generator().manual_seed(2))  # of any length
    made.update(samples, torch.tensor([2, 4, 2]), torch.tensor([1, 0, 1]))
    expected = before.clone()
    expected[1 * 5 + 2] = unit(0.9 * before[7] + 0.1 * (unit(samples[0]) + unit(samples[2])) / 2)
    expected[0 * 5 + 4] = unit(0.9 * before[4] + 0.1 * unit(samples[1]))
    torch.testing.assert_close(made.rows, expected)


def test_no_sample_changes_nothing() -> None:
    made = bank()
    none = torch.zeros(0, dtype=torch.long)
    made.update(torch.zeros(0, 4), none, none)
    made.push_clutter(torch.zeros(0, 4))
    assert torch.equal(made.rows, bank().rows)


def test_samples_drive_a_row_to_where_they_point() -> None:
    made, aim = bank(), torch.tensor([[1.0, -2.0, 0.5, 0.0]])
    for _ in range(100):
        made.update(aim, torch.tensor([3]), torch.tensor([2]))
    torch.testing.assert_close(made.rows[13:14], unit(aim), atol=1e-3, rtol=0)


def test_new_clutter_takes_the_place_of_the_oldest() -> None:
    made = bank()
    rows = unit(torch.randn(20, 4, generator=torch.Generator().manual_seed(3)))
    made.push_clutter(rows[:4])
    made.push_clutter(rows[4:8])
    torch.testing.assert_close(made.rows[15:], rows[[6, 7, 2, 3, 4, 5]])
    made.push_clutter(rows)  # more than there is room for
    assert {tuple(row) for row in made.rows[15:].tolist()} == {tuple(row) for row in unit(rows[-6:]).tolist()}
    made.push_clutter(rows[:1])
    torch.testing.assert_close(made.rows[15:].norm(dim=1), torch.ones(6))


def test_a_fit_takes_kernels_first_and_the_mean_of_the_clutter() -> None:
    made = bank()
    found = made.features()
    assert found.kernels.shape == (5, 3, 4)
    assert torch.equal(found.kernels[2, 1], made.rows[1 * 5 + 2])
    torch.testing.assert_close(found.clutter, unit(made.rows[15:].mean(0, keepdim=True)))
    assert found.checked(5, 4) is found


@pytest.mark.parametrize(
    ("kernels", "clutter", "words"),
    [
        (torch.ones(6, 3, 4), torch.ones(1, 4), r"the feature bank is \(6, 3, 4\) for 5 kernels"),
        (torch.ones(5, 4), torch.ones(1, 4), r"the feature bank is \(5, 4\) for 5 kernels"),
        (torch.ones(5, 0, 4), torch.ones(1, 4), "no orientation bin or no clutter"),
        (torch.ones(5, 3, 4), torch.ones(0, 4), "no orientation bin or no clutter"),
        (torch.ones(5, 3, 8), torch.ones(1, 8), "has 8 and 8 channels, the feature map 4"),
        (torch.ones(5, 3, 4), torch.ones(1, 8), "has 4 and 8 channels, the feature map 4"),
        (torch.full((5, 3, 4), torch.nan), torch.ones(1, 4), "the feature bank holds NaN or infinity"),
        (torch.ones(5, 3, 4), torch.full((1, 4), torch.inf), "the feature bank holds NaN or infinity"),
    ],
)
def test_a_bank_of_another_size_is_refused(kernels: torch.Tensor, clutter: torch.Tensor, words: str) -> None:
    with pytest.raises(FitError, match=words):
        Features(kernels, clutter).checked(5, 4)
