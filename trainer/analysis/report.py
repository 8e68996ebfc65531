# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTML file that opens anywhere: no network, no script, pictures inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from wav2sem_blender.files import write_atomically

from ..evaluation.tables import table as markdown_table

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1.25rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; padding-bottom: .25rem; }
p, figcaption { max-width: 50rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; }
td.number { text-align: right; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #444; font-size: .9rem; }
nav a { margin-right: 1rem; } .note { border-left: 4px solid #e69f00; padding-left: .75rem; }
pre { background: #f5f5f5; padding: .75rem; overflow-x: auto; font-size: .85rem; }
"""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text and numbers; numbers are shown with four significant digits."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG and its caption, which screen readers read too."""

    path: Path
    caption: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sentence about what could not be done, and why."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Literal:
    """Preformatted text, such as Markdown or JSON."""

    text: str


Block = str | Table | Picture | Note | Literal


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with paragraphs (plain strings), tables, pictures and notes below it."""

    title: str
    blocks: Sequence[Block]


def write_report(path: Path, title: str, sections: Sequence[Section]) -> Path:
    """Write the file; it refers to nothing outside itself."""
    links = " ".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(sections))
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>",
        f"<body><h1>{escape(title)}</h1>",
        f"<nav>{links}</nav>",
    ]
    for i, section in enumerate(sections):
        parts.append(f'<section id="s{i}"><h2>{escape(section.title)}</h2>')
        parts += [_block(block) for block in section.blocks]
        parts.append("</section>")
    write_atomically(path, "\n".join([*parts, "</body>", "</html>", ""]).encode())
    return path


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """The same report as Markdown, without its pictures."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [_markdown(block) for block in section.blocks if not isinstance(block, Picture)]
    return "\n\n".join(parts) + "\n"


def four_digits(value: float) -> str:
    """Four significant digits, a real minus sign; integers as they are."""
    if isinstance(value, (int, np.integer)):
        return str(value)
    return "–" if not np.isfinite(value) else f"{value:.4g}".replace("-", "−")


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        data = base64.b64encode(block.path.read_bytes()).decode()
        caption = escape(block.caption)
        image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    if isinstance(block, Note):
        return f'<p class="note">{escape(block.text)}</p>'
    return f"<pre>{escape(block.text)}</pre>" if isinstance(block, Literal) else f"<p>{escape(block)}</p>"


def _markdown(block: Block) -> str:
    if isinstance(block, Table):
        rows = [[value if isinstance(value, str) else four_digits(value) for value in row] for row in block.rows]
        return f"**{block.caption}**\n\n{markdown_table(block.header, rows)}"
    if isinstance(block, Literal):
        return f"```\n{block.text}\n```"
    return f"> {block.text}" if isinstance(block, Note) else str(block)


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in table.rows)
    return (
        f'<div class="scroll"><table><caption>{escape(table.caption)}</caption>'
        f"<thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(value: str | float | int) -> str:
    return f"<td>{escape(value)}</td>" if isinstance(value, str) else f'<td class="number">{four_digits(value)}</td>'
