from __future__ import annotations

import numpy as np

from scvae_data.processing.genes.texts import OfTexts, Texts


def test_texts_are_numbered_as_they_come() -> None:
    texts = Texts()
    assert texts.numbers(["b", "", "a", "b"]).tolist() == [1, 0, 2, 1]
    assert texts.numbers(["a", "c"]).tolist() == [2, 3]
    assert texts.named(texts.numbers(["c", "", "a"])) == ["c", "", "a"]
    assert texts.among(texts.numbers(["", "c", "c"])).tolist() == [False, False, False, True]
    assert np.array_equal(texts.numbers([]), np.empty(0, np.int32))


def test_what_a_text_tells_is_found_out_once_though_it_brings_new_texts() -> None:
    texts, asked = Texts(), list[str]()

    def first_letters(names: list[str]) -> list[int]:
        asked.extend(names)
        return texts.numbers([name[:1] for name in names]).tolist()

    first = OfTexts(texts, first_letters)
    for names in (["actb", "", "tp53", "actb"], ["tp53", "t", "actb"], []):
        assert texts.named(first.of(texts.numbers(names))) == [name[:1] for name in names]
    assert sorted(asked) == ["", "actb", "t", "tp53"]
