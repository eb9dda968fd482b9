"""The formats that pages are written in, one module each. They write to streams: naming the files is not theirs."""

from __future__ import annotations

from pipelines.formats.alto import ALTO
from pipelines.formats.hocr import HOCR
from pipelines.formats.jsonl import JSONL
from pipelines.formats.overlay import OVERLAY
from pipelines.formats.page_xml import PAGE
from pipelines.formats.parquet import PARQUET
from pipelines.formats.pdf import PDF, PDFA
from pipelines.formats.record import Format
from pipelines.formats.text import TXT
from pipelines.formats.tsv import TSV

FORMATS: dict[str, Format] = {
    format.name: format for format in (TXT, JSONL, HOCR, ALTO, PAGE, TSV, PDF, PDFA, PARQUET, OVERLAY)
}
