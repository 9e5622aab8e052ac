"""docs/fidelity.md keeps its word: each of its rows is measured again, and there are no others."""

from __future__ import annotations

import pytest
from fidelity_rows import ROWS
from fidelity_table import PAGE, measure

from poolkit import ModelConfig
from poolkit_plugins.cpu._library import find_library

pytestmark = pytest.mark.usefixtures("one_thread")

PADDED_ALONE = {"DeBERTa-v2", "SigLIP", "SigLIP 2", "ColPali", "ColQwen2", "ColModernVBERT"}
RUN_BY_OPENVINO = {
    "all-MiniLM-L6-v2",
    "BERT",
    "RoBERTa",
    "XLM-RoBERTa",
    "MPNet",
    "DistilBERT",
    "ModernBERT",
    "DeBERTa-v2",
    "NomicBERT",
    "GTE",
    "Jina embeddings v3",
    "ColBERT (BERT)",
    "ColBERT (ModernBERT)",
}
LEFT_BY_CPU = {
    *("DeBERTa-v2", "ColBERT (BERT)", "ColBERT (ModernBERT)"),
    *("CLIP", "SigLIP", "SigLIP 2", "ColPali", "ColQwen2", "ColModernVBERT"),
}
"""Families that are not in its table, those that read images too, and models whose widths the kernels do not take."""
HAS_KERNELS = not isinstance(find_library(ModelConfig(dtype="float32")), str)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.family}, {row.asked}")
def test_each_row_keeps_its_promise(row, tmp_path):
    measured = measure(row, tmp_path)
    assert measured.worst <= row.promised
    paths = {"padded"}
    if row.family not in PADDED_ALONE:
        paths.add("packed")
    if row.family in RUN_BY_OPENVINO:
        paths.add("openvino")
    if row.family not in LEFT_BY_CPU and HAS_KERNELS:
        paths.add("cpu")
    assert measured.differences.keys() - {"cpu, bfloat16"} == paths


def test_the_page_has_these_rows_and_no_number_above_its_promise():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cells[:3] for cells in told] == [[row.family, row.asked, row.against] for row in ROWS]
    for cells, row in zip(told, ROWS, strict=True):
        packed, padded, openvino, cpu, _, promised = cells[3:]
        assert float(promised) == row.promised
        assert float(padded) <= row.promised
        assert packed == "none" if row.family in PADDED_ALONE else float(packed) <= row.promised
        assert float(openvino) <= row.promised if row.family in RUN_BY_OPENVINO else openvino == "none"
        assert cpu == "none" if row.family in LEFT_BY_CPU else float(cpu) <= row.promised
