from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from scvae_data.store.memory_file import MemoryFile

STEPS = st.one_of(
    st.tuples(st.just("write"), st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("seek"), st.integers(0, 60)),
    st.tuples(st.just("truncate"), st.integers(0, 60)),
    st.tuples(st.just("read"), st.integers(0, 20)),
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), st.lists(STEPS, max_size=20))
def test_it_does_what_a_file_in_memory_does(room, steps):
    ours, theirs = MemoryFile(room), io.BytesIO()
    ours._memory[:] = 99  # what is there is not zero
    for step, value in steps:
        if step == "truncate" and value > len(theirs.getvalue()):
            there = theirs.tell()  # as files on disk, and not as BytesIO, it gets longer
            theirs.seek(value - 1)
            theirs.write(b"\0")
            theirs.seek(there)
        assert getattr(ours, step)(value) == getattr(theirs, step)(value)
        assert ours.tell() == theirs.tell()
    assert bytes(ours.getbuffer()) == theirs.getvalue()
    assert ours.seek(0, io.SEEK_END) == len(theirs.getvalue())
