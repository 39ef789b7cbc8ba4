from __future__ import annotations

import numpy as np
import pytest

from scvae_data.errors import ConfigError
from scvae_data.loading.select.rows import as_names, chunk_rows, sampled, to_row_groups, wanted_codes

FIRST_ROWS = np.array([0, 4, 4, 9])


def rows_of(mask: np.ndarray | None) -> list[list[int]]:
    return [group.global_rows(np.arange(group.n_rows)).tolist() for group in to_row_groups(mask, FIRST_ROWS)]


def test_no_filter_selects_every_chunk_that_has_cells() -> None:
    row_groups = to_row_groups(None, FIRST_ROWS)
    assert [(group.chunk_id, group.start, group.stop, group.rows) for group in row_groups] == [
        (0, 0, 4, None),
        (2, 0, 5, None),
    ]


def test_chunks_without_selected_cells_make_no_row_group() -> None:
    mask = np.zeros(9, bool)
    mask[5] = True
    assert rows_of(mask) == [[5]]


def test_gapless_rows_are_kept_as_a_range_and_others_as_rows() -> None:
    mask = np.array([0, 1, 1, 0, 1, 0, 1, 1, 1], bool)
    first, second = to_row_groups(mask, FIRST_ROWS)
    assert (first.start, first.stop, first.rows) == (1, 3, None)
    assert first.spans(0, 2) == [(1, 3)] and first.spans(1, 2) == [(2, 3)]
    assert second.rows is not None and second.rows.tolist() == [0, 2, 3, 4]
    assert second.spans(0, 4) == [(0, 1), (2, 5)]
    assert second.spans(1, 3) == [(2, 4)]
    assert rows_of(mask) == [[1, 2], [4, 6, 7, 8]]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        pytest.param([1], None, [1, 4], id="include"),
        pytest.param(None, [1], [0, 2, 3, 5], id="exclude keeps unknown"),
        pytest.param([0, 1], [1], [0], id="both"),
    ],
)
def test_wanted_codes(include: list[int] | None, exclude: list[int] | None, expected: list[int]) -> None:
    codes = np.array([0, 1, 2, 3, 1, 2], np.int32)  # 3 = unknown
    as_codes = [None if names is None else np.array(names, np.int32) for names in (include, exclude)]
    wanted = wanted_codes(3, *as_codes)
    assert wanted is not None and np.flatnonzero(wanted[codes]).tolist() == expected


def test_nothing_to_select_by_is_no_mask() -> None:
    assert wanted_codes(1, None, None) is None


@pytest.mark.parametrize("rows", [[2, 3, 4, 5], [2, 4, 5, 9]])
def test_some_rows_of_a_row_group(rows: list[int]) -> None:
    group = chunk_rows(1, 100, np.array(rows))
    assert group is not None
    for low in range(11):
        for high in range(low, 11):
            found = group.between(low, high)
            expected = [100 + row for row in rows if low <= row < high]
            assert ([] if found is None else found.global_rows(slice(None)).tolist()) == expected
    assert group.where(np.zeros(4, bool)) is None
    found = group.where(np.array([False, True, True, False]))
    assert found is not None and found.global_rows(slice(None)).tolist() == [100 + row for row in rows[1:3]]


def test_one_string_is_one_name() -> None:
    assert as_names("key", "SRX1") == ("SRX1",)
    assert as_names("key", ["SRX1", "SRX2"]) == ("SRX1", "SRX2")
    assert as_names("key", None) is None


@pytest.mark.parametrize(("value", "message"), [([], "names nothing"), ([1], "holds 1, which is not a name")])
def test_names_that_are_none(value: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_names("key", value)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [1, 5, 11, 12, 40])
def test_a_sample_keeps_order_and_chooses_each_row_alike(n: int) -> None:
    mask = np.array([True] * 3 + [False, True, True] + [False] * 4 + [True] * 7)
    groups = to_row_groups(mask, np.array([0, 6, 10, 17]))
    selected = np.flatnonzero(mask)
    seen = np.zeros(17)
    for seed in range(1000):
        found = sampled(groups, n, np.random.default_rng(seed))
        rows = np.concatenate([group.global_rows(slice(None)) for group in found])
        assert len(rows) == min(n, 12)
        assert (np.diff(rows) > 0).all()
        seen[rows] += 1
    assert np.flatnonzero(seen).tolist() == selected.tolist()
    assert seen[selected] / 1000 == pytest.approx(min(n, 12) / 12, abs=0.07)
