"""The policy as structure, and its canonical text."""

from __future__ import annotations

import hashlib

import pytest

from privacy.policy.document import (
    BulletList,
    Document,
    Paragraph,
    Row,
    Section,
    Sentence,
    Table,
    anchor,
    document_json,
    document_parse,
    document_text,
    text_hash,
)
from privacy.services import FOUNDING_PATH

FOUNDING_SHA256 = "bd98231cf680348041b226135e4c41752c814d8176513abcb6103a7afdd2ae90"

DOCUMENT = Document(
    Sentence("Privacy Policy", "S-1"),
    (
        Section(
            "Who & Why",
            (
                Paragraph((Sentence("We are.", "S-2"), Sentence("We do:", "S-3"))),
                BulletList((Paragraph((Sentence("this.", "S-4"),)),)),
                Table(("What", "How long"), (Row(("Logs", "30 days"), "S-5"),)),
            ),
        ),
    ),
)
TEXT = """Privacy Policy
1. Who & Why
We are. We do:
- this.
| What | How long |
|---|---|
| Logs | 30 days |"""


def test_founding_policy_is_kept_byte_for_byte() -> None:
    assert hashlib.sha256(FOUNDING_PATH.read_bytes()).hexdigest() == FOUNDING_SHA256


def test_founding_policy_survives_being_read_into_structure() -> None:
    text = FOUNDING_PATH.read_text()
    document = document_parse(text)
    assert document_text(document) == text
    assert len(document.sections) == 12
    assert text_hash(text) == FOUNDING_SHA256


def test_canonical_text_has_a_line_for_each_block() -> None:
    assert document_text(DOCUMENT) == TEXT


def test_every_sentence_and_row_keeps_its_claim() -> None:
    assert list(DOCUMENT.sentences()) == [
        ("S-1", "Privacy Policy"),
        ("S-2", "We are."),
        ("S-3", "We do:"),
        ("S-4", "this."),
        ("S-5", "Logs | 30 days"),
    ]


def test_stored_form_keeps_claims_and_columns() -> None:
    [section] = document_json(DOCUMENT)["sections"]
    assert (section["number"], section["anchor"]) == (1, "who-why")
    paragraph, bullets, table = section["blocks"]
    assert paragraph["sentences"][1] == {"claim": "S-3", "text": "We do:"}
    assert bullets["items"] == [[{"claim": "S-4", "text": "this."}]]
    assert table["rows"] == [
        {
            "claim": "S-5",
            "cells": [
                {"column": "What", "text": "Logs"},
                {"column": "How long", "text": "30 days"},
            ],
        }
    ]


def test_text_before_the_first_section_is_refused() -> None:
    with pytest.raises(ValueError, match="before the first section"):
        document_parse("Title\nLost words.")


def test_anchor_is_lower_case_words() -> None:
    assert anchor("Cookies & Similar Technologies") == "cookies-similar-technologies"
