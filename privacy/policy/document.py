"""The privacy policy as structure: sections of paragraphs, lists and tables, made of sentences.

A sentence (a row of a table counts as one) carries the id of the claim it makes, `S-n`. The
canonical text has the form in which the founding policy came: one line for a heading, a paragraph,
a list item (`- `) or a table row (`| `). Its SHA-256 is what a version is known by.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sentence:
    """One promise, and the id of its claim (empty in the founding policy)."""

    text: str
    claim: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Sentences one after the other; also an item of a list."""

    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


@dataclass(frozen=True)
class Subheading:
    """A heading without a number, inside a section."""

    text: str


@dataclass(frozen=True)
class BulletList:
    items: tuple[Paragraph, ...]


@dataclass(frozen=True)
class Row:
    """One row of a table, which is one claim."""

    cells: tuple[str, ...]
    claim: str = ""


@dataclass(frozen=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


Block = Paragraph | Subheading | BulletList | Table


@dataclass(frozen=True)
class Section:
    """A numbered part of the policy; its number is its place."""

    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    title: Sentence
    sections: tuple[Section, ...]

    def sentences(self) -> Iterator[tuple[str, str]]:
        """Every sentence and table row: (claim, text), in order."""
        yield self.title.claim, self.title.text
        for section in self.sections:
            for block in section.blocks:
                yield from _block_sentences(block)


def document_text(document: Document) -> str:
    """The canonical text: UTF-8 when encoded, lines ended by a line feed but the last."""
    lines = [document.title.text]
    for number, section in enumerate(document.sections, 1):
        lines.append(f"{number}. {section.heading}")
        for block in section.blocks:
            lines.extend(_block_lines(block))
    return "\n".join(lines)


def text_hash(text: str) -> str:
    """The SHA-256 of a canonical text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def document_json(document: Document) -> dict[str, Any]:
    """The document as it is stored, and as templates read it."""
    return {
        "title": _sentence_json(document.title),
        "sections": [
            {
                "number": number,
                "anchor": anchor(section.heading),
                "heading": section.heading,
                "blocks": [_block_json(block) for block in section.blocks],
            }
            for number, section in enumerate(document.sections, 1)
        ],
    }


def anchor(heading: str) -> str:
    """A heading as the end of an address: "What Data We Collect" is "what-data-we-collect"."""
    return "-".join(re.findall(r"[a-z0-9]+", heading.lower()))


def document_parse(text: str) -> Document:
    """Read a canonical text back, as far as text can tell: sentences come without claims.

    A line that is no heading, item or row is a subheading where it lacks a closing mark.

    Raises:
        ValueError: the first line is no title, or something stands before the first section.
    """
    title, *lines = text.split("\n")
    sections: list[tuple[str, list[Block]]] = []
    for line in lines:
        heading = re.fullmatch(r"\d+\. (.+)", line)
        if heading:
            sections.append((heading[1], []))
        elif not sections:
            raise ValueError(f"before the first section: {line!r}")
        else:
            _line_add(sections[-1][1], line)
    return Document(
        Sentence(title), tuple(Section(heading, tuple(blocks)) for heading, blocks in sections)
    )


def _line_add(blocks: list[Block], line: str) -> None:
    last = blocks[-1] if blocks else None
    if line.startswith("- "):
        items = last.items if isinstance(last, BulletList) else ()
        if items:
            blocks.pop()
        blocks.append(BulletList((*items, Paragraph((Sentence(line.removeprefix("- ")),)))))
    elif line.startswith("|"):
        cells = tuple(line.removeprefix("| ").removesuffix(" |").split(" | "))
        if not isinstance(last, Table):
            blocks.append(Table(cells, ()))
        elif line.strip("|-"):
            blocks[-1] = Table(last.columns, (*last.rows, Row(cells)))
    elif line.endswith((".", ":", "?")):
        blocks.append(Paragraph((Sentence(line),)))
    else:
        blocks.append(Subheading(line))


def _block_sentences(block: Block) -> Iterator[tuple[str, str]]:
    match block:
        case Paragraph(sentences):
            yield from ((sentence.claim, sentence.text) for sentence in sentences)
        case BulletList(items):
            for item in items:
                yield from _block_sentences(item)
        case Table(_, rows):
            yield from ((row.claim, " | ".join(row.cells)) for row in rows)
        case Subheading():
            pass


def _block_lines(block: Block) -> Iterator[str]:
    match block:
        case Paragraph() | Subheading():
            yield block.text
        case BulletList(items):
            yield from (f"- {item.text}" for item in items)
        case Table(columns, rows):
            yield f"| {' | '.join(columns)} |"
            yield f"|{'---|' * len(columns)}"
            yield from (f"| {' | '.join(row.cells)} |" for row in rows)


def _sentence_json(sentence: Sentence) -> dict[str, str]:
    return {"claim": sentence.claim, "text": sentence.text}


def _block_json(block: Block) -> dict[str, Any]:
    match block:
        case Paragraph(sentences):
            return {"kind": "paragraph", "sentences": [_sentence_json(each) for each in sentences]}
        case Subheading(text):
            return {"kind": "subheading", "text": text, "anchor": anchor(text)}
        case BulletList(items):
            return {
                "kind": "list",
                "items": [[_sentence_json(each) for each in item.sentences] for item in items],
            }
        case Table(columns, rows):
            return {
                "kind": "table",
                "columns": list(columns),
                "rows": [
                    {
                        "claim": row.claim,
                        "cells": [
                            {"column": column, "text": text}
                            for column, text in zip(columns, row.cells, strict=True)
                        ],
                    }
                    for row in rows
                ],
            }
