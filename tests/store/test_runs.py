from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scvae_data.store.runs import run_starts


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 30)), max_size=12), st.integers(0, 12))
def test_runs_begin_where_bytes_change(runs, most):
    content = b"".join(bytes([value]) * n for value, n in runs)
    values = np.frombuffer(content, np.uint8)
    lengths = [len(list(run)) for _, run in groupby(content)]
    starts = np.cumsum([0, *lengths]).tolist()
    assert run_starts(values, values.size).tolist() == starts
    assert run_starts(values, most).tolist() == (starts if len(lengths) <= most else [])
