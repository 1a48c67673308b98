"""A record as one HTML page, as a PDF, and as JSON. Nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final

import msgspec
from fpdf import FPDF
from fpdf.fonts import FontFace

from telemetry.record.sections import document_of, sections_of

if TYPE_CHECKING:
    from telemetry.record.sections import Section
    from telemetry.store.records import Record

__all__ = ["HTML_POLICY", "write_html", "write_json", "write_pdf"]

_INTRODUCTION: Final = (
    "This is everything that the location monitoring system keeps about you: what your devices sent, what "
    "the system decided from it, what people did about it, and who looked at it. If you think that something "
    "is wrong, show this to your lawyer, or to the office that supervises you: each entry can be checked "
    "again from what is stored. Times are in UTC, the world's common time."
)
_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 2rem; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #999; }
p.empty { font-style: italic; }
@media (prefers-color-scheme: dark) { body { background: #111; color: #eee; } }
@media print { tr { break-inside: avoid; } }
"""
# The page's own style and nothing else: it is opened from the API, or from a disk.
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HTML_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def _title(record: Record) -> str:
    return f"What is recorded about {record.participant}"


def _made() -> str:
    return f"Made on {datetime.now(UTC):%d %B %Y at %H:%M} UTC."


def write_json(record: Record) -> bytes:
    """The record for programs."""
    return msgspec.json.format(msgspec.json.encode(document_of(record)))


def write_html(record: Record) -> bytes:
    """The record as a page that needs nothing else."""
    title = escape(_title(record))
    body = "".join(_html_section(section) for section in sections_of(record))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1><p>{_made()}</p><p>{_INTRODUCTION}</p>{body}</body></html>\n"
    ).encode()


def _html_section(section: Section) -> str:
    head = f"<h2>{escape(section.title)}</h2><p>{escape(section.explanation)}</p>"
    if not section.rows:
        return f'{head}<p class="empty">{escape(section.empty)}</p>'
    columns = "".join(f'<th scope="col">{escape(column)}</th>' for column in section.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in section.rows
    )
    return f"{head}<table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>"


def write_pdf(record: Record) -> bytes:
    """The record on paper."""
    pdf = FPDF(orientation="landscape", format="A4")
    pdf.set_title(_latin(_title(record)))
    pdf.set_lang("en")
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 18)
    _paragraph(pdf, _title(record), 9)
    pdf.set_font("Helvetica", "", 10)
    _paragraph(pdf, f"{_made()} {_INTRODUCTION}", 5)
    for section in sections_of(record):
        pdf.ln(4)
        pdf.set_font("Helvetica", "B", 13)
        _paragraph(pdf, section.title, 7)
        pdf.set_font("Helvetica", "", 10)
        _paragraph(pdf, section.explanation, 5)
        if not section.rows:
            pdf.set_font("Helvetica", "I", 10)
            _paragraph(pdf, section.empty, 5)
            continue
        pdf.set_font("Helvetica", "", 8)
        with pdf.table(line_height=4.5, headings_style=FontFace(emphasis="BOLD"), text_align="LEFT") as table:
            for cells in (section.columns, *section.rows):
                row = table.row()
                for cell in cells:
                    row.cell(_latin(cell))
    return bytes(pdf.output())


def _paragraph(pdf: FPDF, text: str, height_mm: float) -> None:
    pdf.multi_cell(0, height_mm, _latin(text), new_x="LMARGIN", new_y="NEXT")


def _latin(text: str) -> str:
    """The fonts that every reader of PDF has know Latin-1 alone; the page and the JSON have every letter."""
    return text.encode("latin-1", "replace").decode("latin-1")
