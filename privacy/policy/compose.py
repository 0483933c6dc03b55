"""The current policy, written from the claims, the registry, the registers and the settings.

`claims.toml` has the sentences; this module has their order, and what stands for the words in
braces. What the installed apps do not do is not said: a category without data has no row, a purpose
without data no item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured

from privacy.cookies import Cookie
from privacy.policy.claims import claims_load
from privacy.policy.document import (
    BulletList,
    Document,
    Paragraph,
    Row,
    Section,
    Sentence,
    Subheading,
    Table,
)
from privacy.policy.operator import Operator
from privacy.registry import LEGAL_BASES, Category, Purpose, Registry
from privacy.retention.classes import RETENTION_CLASSES, SUPPORT

CATEGORY_CLAIMS = {
    Category.ACCOUNT: "S-10",
    Category.CONNECTION_LOGS: "S-11",
    Category.WEBSITE_DEVICE: "S-13",
    Category.SUPPORT: "S-14",
}
PURPOSE_CLAIMS = {
    Purpose.PROVIDE: "S-18",
    Purpose.SECURITY: "S-19",
    Purpose.BILLING: "S-20",
    Purpose.SUPPORT: "S-21",
    Purpose.LEGAL: "S-22",
}
# Letters to the operator arrive outside the software, whichever apps are installed.
CORRESPONDENCE_DATA = ("emails and letters that you send us",)
CORRESPONDENCE_PURPOSES = frozenset({Purpose.SUPPORT, Purpose.LEGAL})


@dataclass(frozen=True)
class Writer:
    """Writes claims out, with the words that hold for the whole policy."""

    words: Mapping[str, str]

    def sentence(self, claim: str, **words: str) -> Sentence:
        return Sentence(self._text(claim, words), claim)

    def row(self, claim: str, **words: str) -> Row:
        return Row(tuple(self._text(claim, words).split(" | ")), claim)

    def paragraph(self, *claims: str) -> Paragraph:
        return Paragraph(tuple(self.sentence(claim) for claim in claims))

    def bullets(self, *claims: str) -> BulletList:
        return BulletList(tuple(self.paragraph(claim) for claim in claims))

    def _text(self, claim: str, words: Mapping[str, str]) -> str:
        return claims_load()[claim].text.format(**self.words, **words)


def policy_compose(
    *, registry: Registry, operator: Operator, cookies: Sequence[Cookie]
) -> Document:
    """Write the policy that is true of this installation.

    Raises:
        ImproperlyConfigured: no app registered a service, or a purpose has no sentence.
    """
    services = registry.services()
    if not services:
        raise ImproperlyConfigured(
            "no app registered a service: the policy has nothing to be about"
        )
    writer = Writer(
        {
            "service_name": operator.service_name,
            "services": _joined(services),
            "legal_entity": operator.legal_entity,
            "legal_address": operator.legal_address,
            "dpo_email": operator.dpo_email,
            "host": operator.host,
            "server_location": operator.server_location,
        }
    )
    return Document(
        writer.sentence("S-1"),
        (
            Section(
                "Who We Are",
                (writer.paragraph("S-2", "S-3"), writer.paragraph("S-4"), writer.paragraph("S-5")),
            ),
            Section(
                "Scope of This Policy",
                (writer.paragraph("S-63"), writer.bullets("S-6", "S-7", "S-8", "S-9")),
            ),
            _data_section(writer, registry, cookies),
            _use_section(writer, registry),
            _sharing_section(writer, operator),
            Section("International Data Transfers", (writer.paragraph("S-32", "S-33"),)),
            _retention_section(writer, registry),
            _security_section(writer, operator),
            Section(
                "Your Rights",
                (
                    writer.paragraph("S-55"),
                    writer.bullets("S-46", "S-47", "S-48", "S-49", "S-51", "S-52", "S-53"),
                    writer.paragraph("S-54"),
                ),
            ),
            Section("Children", (writer.paragraph("S-56", "S-57", "S-79"),)),
            Section("Changes to This Policy", (writer.paragraph("S-80", "S-58", "S-59", "S-60"),)),
            Section("Contact", (writer.paragraph("S-62"), writer.paragraph("S-81", "S-61"))),
        ),
    )


def _data_section(writer: Writer, registry: Registry, cookies: Sequence[Cookie]) -> Section:
    data = {category: registry.data(category) for category in Category}
    data[Category.SUPPORT].extend(CORRESPONDENCE_DATA)
    rows = tuple(
        writer.row(CATEGORY_CLAIMS[category], data=data_said(words))
        for category, words in data.items()
        if words
    )
    cookie_rows = tuple(
        writer.row(
            "S-68",
            cookie=cookie.name,
            cookie_purpose=cookie.purpose,
            cookie_lifetime=cookie.lifetime,
        )
        for cookie in cookies
    )
    return Section(
        "What Data We Collect",
        (
            writer.paragraph("S-64"),
            Table(("Category", "Data", "Purpose"), rows),
            writer.paragraph("S-15"),
            writer.paragraph("S-65", "S-66", "S-67"),
            Subheading("Cookies & Similar Technologies"),
            writer.paragraph("S-16"),
            Table(("Cookie", "Purpose", "Lifetime"), cookie_rows),
            writer.paragraph("S-69", "S-70", "S-17"),
        ),
    )


def _use_section(writer: Writer, registry: Registry) -> Section:
    used = CORRESPONDENCE_PURPOSES.union(registry.purposes())
    unsaid = used.difference(PURPOSE_CLAIMS)
    if unsaid:
        raise ImproperlyConfigured(f"section 4 has no sentence for: {', '.join(sorted(unsaid))}")
    items = tuple(
        Paragraph((writer.sentence(claim, basis=_legal_basis(purpose)),))
        for purpose, claim in PURPOSE_CLAIMS.items()
        if purpose in used
    )
    return Section("How We Use Personal Data", (writer.paragraph("S-71"), BulletList(items)))


def _sharing_section(writer: Writer, operator: Operator) -> Section:
    rows = tuple(
        writer.row(
            "S-28",
            processor=processor.name,
            processor_purpose=processor.purpose,
            processor_location=processor.location,
        )
        for processor in operator.processors_used()
    )
    return Section(
        "Data Sharing & Disclosure",
        (
            writer.paragraph("S-24"),
            writer.bullets("S-72", *(["S-25"] if rows else []), "S-26", "S-27"),
            Subheading("Current List of Data Processors"),
            Table(("Processor", "Purpose of Data Transfer", "Location"), rows)
            if rows
            else writer.paragraph("S-73"),
        ),
    )


def _retention_section(writer: Writer, registry: Registry) -> Section:
    used = registry.retention_classes() | {SUPPORT}
    rows = tuple(
        writer.row(
            each.claim, retention_category=each.policy_category, retention_period=each.policy_period
        )
        for each in RETENTION_CLASSES
        if each in used
    )
    return Section(
        "Data Retention",
        (
            Table(("Data Category", "Retention Period"), rows),
            writer.paragraph("S-76", "S-82", "S-77"),
            writer.paragraph("S-38"),
        ),
    )


def _security_section(writer: Writer, operator: Operator) -> Section:
    in_transit = ["S-40"] if operator.https else []
    return Section(
        "Security Measures",
        (writer.paragraph("S-45"), writer.bullets(*in_transit, "S-78", "S-42", "S-43")),
    )


def _legal_basis(purpose: Purpose) -> str:
    letters = " & ".join(f"({letter})" for letter in LEGAL_BASES[purpose])
    return f"Art. 6 (1){letters}"


def _joined(words: Sequence[str]) -> str:
    *firsts, last = words
    return f"{', '.join(firsts)} and {last}" if firsts else last


def data_said(words: Sequence[str]) -> str:
    """The data of one row, divided by commas, or by semicolons where a comma is in one of them."""
    divider = "; " if any("," in word for word in words) else ", "
    said = divider.join(words)
    return said[:1].upper() + said[1:]
