from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from scvae_data.processing.genes.pair_counts import PairCounts
from scvae_data.processing.genes.texts import Texts

TABLES = st.lists(
    st.tuples(st.lists(st.tuples(*[st.sampled_from(["", "A", "B", "C"])] * 2), max_size=9), st.integers(1, 4)),
    max_size=5,
)


@given(TABLES)
def test_pairs_are_counted_and_keep_the_order_in_which_they_come(
    tables: list[tuple[list[tuple[str, str]], int]],
) -> None:
    pairs = PairCounts(texts := Texts())
    expected: Counter[tuple[str, str]] = Counter()
    for rows, weight in tables:
        first, second = ([row[at] for row in rows] for at in (0, 1))
        places = pairs.add(texts.numbers(first), texts.numbers(second), weight)
        distinct = [row for row in dict.fromkeys(rows) if all(row)]
        assert {rows[place] for place in places} == set(distinct)
        assert texts.numbers([first[place] for place in places]).tolist() == sorted(
            texts.numbers([one for one, _ in distinct])
        )
        for row in distinct:
            expected[row] += weight
    assert list(pairs) == [(*row, n) for row, n in expected.items()]
    assert all(pairs.of(*row) == n for row, n in expected.items())
    assert pairs.of("A", "never") == pairs.of("", "A") == 0
