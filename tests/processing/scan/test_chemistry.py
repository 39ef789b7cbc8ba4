"""Names of cells tell of a chemistry only where nearly all of them have its form."""

from __future__ import annotations

import pytest

from scvae_data.processing.scan.chemistry import chemistry_of, sequences

SEQUENCE = "ACGTTGCAACGTTGCATTGACCAT"


@pytest.mark.parametrize(
    ("names", "chemistry"),
    [
        ([f"{SEQUENCE[:16]}-1"], "10x (16 nt)"),
        ([SEQUENCE[:16]], "10x (16 nt)"),
        ([f"GSM123_sample2_{SEQUENCE[:16]}-1", f"{SEQUENCE[:16]}-1-donor_3"], "10x (16 nt)"),
        ([f"{SEQUENCE[:14]}-1"], "10x 3' v1 (14 nt)"),
        ([f"{SEQUENCE}-1"], "10x Flex (16 + 8 nt)"),
        ([SEQUENCE[:12]], "Drop-seq or Seq-Well (12 nt)"),
        ([f"{SEQUENCE[:9]}_{SEQUENCE[:9]}_{SEQUENCE[:9]}"], "BD Rhapsody (3 × 9 nt)"),
        ([f"{SEQUENCE[:10]}-{SEQUENCE[:8]}"], "inDrop (8 to 12 + 8 nt)"),
        (["01_02_96__s1", "24_18_03"], "Parse (three wells)"),
        (["s_008um_00123_00456-1"], "10x Visium HD"),
        ([SEQUENCE], None),
        ([SEQUENCE[:11]], None),
        (["cell1", "0", "A1", "Plate3_B07"], None),
        (["CATTAGATTACAGATTACAS"], None),
        ([SEQUENCE[:16]] * 8 + ["cell1", "cell2"], None),
        ([SEQUENCE[:16]] * 9 + ["cell1"], "10x (16 nt)"),
        ([], None),
    ],
)
def test_chemistry(names: list[str], chemistry: str | None) -> None:
    assert chemistry_of(names) == chemistry


def test_sequences_are_found_beside_what_files_add() -> None:
    names = [f"{SEQUENCE[:16]}-1", f"s1_{SEQUENCE[:16]}-2", f"{SEQUENCE[:16]}-1-batch", "cell_1", SEQUENCE[:11]]
    assert sequences(names).tolist() == [SEQUENCE[:16]] * 3 + ["", ""]
    assert sequences([]).tolist() == []
