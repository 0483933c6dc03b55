"""The registry of personal data: for every field of every table, what it is and why it is kept.

The registry knows no app. An app says in its `personal_data.py` (found at start-up) what each
concrete field of its models is; `accounts` answers for the third-party apps too. A field that
nobody classified, and a classification of a field that does not exist, are problems: the system
check `privacy.E002` names them, and a test fails. Sections 3, 4 and 7 of the privacy policy are
written from this registry.

A field is one of two kinds. Personal: its `datum` is the word by which section 3 of the policy
names it (fields may share one), with category, purposes and retention class. Technical: it says
nothing about a person by itself (row keys, foreign keys, flags and times of the software), and a
reason says why. Fields of one model that differ in category, purposes or retention take a
call each:

    from __future__ import annotations

    from privacy.registry import Category, Purpose, registry
    from privacy.retention.classes import ACCOUNT, BILLING

    registry.register(
        "accounts.User",
        category=Category.ACCOUNT,
        purposes=(Purpose.PROVIDE,),
        retention=ACCOUNT,
        personal={"email": "email address", "name": "name"},
        technical={"id": "row key", "is_active": "switch of the account"},
    )
    registry.register(
        "accounts.User",
        category=Category.ACCOUNT,
        purposes=(Purpose.SECURITY,),
        retention=ACCOUNT,
        personal={"last_login": "time of the last sign-in"},
    )
    registry.register_impersonal("auth.Permission", because="names of actions, set by the code")

Many-to-many tables that Django makes itself are models too ("accounts.User_groups"). Personal
data outside the database (a journal on disk, a counter in the cache) is declared as a place:

    registry.register_place(
        "cache: sign-in attempts",
        category=Category.ACCOUNT,
        purposes=(Purpose.SECURITY,),
        retention=SIGN_IN,
        personal={"key": "IP address of sign-in attempts"},
    )

An app that is a service to customers says so, for section 1 ("provides ... services"):

    registry.register_service("TURN and STUN relay")

Where a word of the founding policy fits, use it as it stands in `FOUNDING_DATA`: section 3 keeps
that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from django.core.exceptions import ImproperlyConfigured
from django.db import models

from privacy.retention.classes import RetentionClass


class Purpose(StrEnum):
    """What personal data may be used for: section 4 of the policy."""

    PROVIDE = "provide"
    SECURITY = "security"
    BILLING = "billing"
    SUPPORT = "support"
    LEGAL = "legal"
    IMPROVE = "improve"


# Article 6 (1) GDPR, by letter.
LEGAL_BASES: Mapping[Purpose, tuple[str, ...]] = {
    Purpose.PROVIDE: ("b",),
    Purpose.SECURITY: ("f",),
    Purpose.BILLING: ("b",),
    Purpose.SUPPORT: ("b",),
    Purpose.LEGAL: ("c",),
    Purpose.IMPROVE: ("f",),
}


class Category(StrEnum):
    """The kinds of personal data: the rows of section 3's table."""

    ACCOUNT = "account"
    CONNECTION_LOGS = "connection_logs"
    WEBSITE_DEVICE = "website_device"
    SUPPORT = "support"


# What section 3 promises each category is used for ("purposes only").
CATEGORY_PURPOSES: Mapping[Category, frozenset[Purpose]] = {
    Category.ACCOUNT: frozenset(
        {Purpose.PROVIDE, Purpose.SECURITY, Purpose.BILLING, Purpose.LEGAL}
    ),
    Category.CONNECTION_LOGS: frozenset(
        {Purpose.PROVIDE, Purpose.SECURITY, Purpose.BILLING, Purpose.LEGAL}
    ),
    Category.WEBSITE_DEVICE: frozenset({Purpose.PROVIDE, Purpose.SECURITY, Purpose.IMPROVE}),
    Category.SUPPORT: frozenset({Purpose.SUPPORT, Purpose.LEGAL, Purpose.IMPROVE}),
}

# Section 3 of the founding policy, in its words and order; other data follow alphabetically.
FOUNDING_DATA: Mapping[Category, tuple[str, ...]] = {
    Category.ACCOUNT: (
        "name",
        "username",
        "email address",
        "company name",
        "billing address",
        "VAT ID/tax number",
        "payment method tokens",
    ),
    Category.CONNECTION_LOGS: (
        "session start/end timestamps",
        "client & peer IP addresses and ports",
        "protocol type",
        "amount of relayed data",
        "authentication events",
    ),
    Category.WEBSITE_DEVICE: (
        "browser type",
        "operating system",
        "referrer URL",
        "pages visited",
        "cookies",
        "approximate location (city/region based on IP)",
    ),
    Category.SUPPORT: ("emails", "support tickets", "chat logs", "feedback"),
}


@dataclass(frozen=True)
class PersonalField:
    """A field that says something about a person.

    Attributes:
        datum: the word by which section 3 of the policy names it.
        category: the row of section 3 in which that word stands.
        purposes: why it is kept; each has its legal basis in `LEGAL_BASES`.
        retention: how long it is kept.
    """

    datum: str
    category: Category
    purposes: tuple[Purpose, ...]
    retention: RetentionClass


@dataclass(frozen=True)
class TechnicalField:
    """A field that says nothing about a person by itself, and why not."""

    reason: str


@dataclass(frozen=True)
class ImpersonalModel:
    """A model none of whose fields, now or later, says anything about a person, and why not."""

    reason: str


FieldDeclaration = PersonalField | TechnicalField


class Registry:
    """What the installed apps declared; the one of the running service is `registry`."""

    def __init__(self) -> None:
        self._fields: dict[str, dict[str, FieldDeclaration]] = {}
        self._impersonal: dict[str, ImpersonalModel] = {}
        self._places: dict[str, dict[str, PersonalField]] = {}
        self._services: list[str] = []

    def register(
        self,
        model: str,
        *,
        category: Category,
        purposes: Sequence[Purpose],
        retention: RetentionClass,
        personal: Mapping[str, str],
        technical: Mapping[str, str] | None = None,
    ) -> None:
        """Declare fields of one model; further calls add further fields.

        Args:
            model: its label, "app_label.Model".
            category: of all fields in `personal`.
            purposes: of all fields in `personal`; the category must allow each.
            retention: of all fields in `personal`.
            personal: field name to the word of section 3 for it.
            technical: field name to the reason why it is not personal.

        Raises:
            ImproperlyConfigured: a field is declared twice, a word or reason is empty, or a
                purpose is not one that section 3 names for this category.
        """
        declared: dict[str, FieldDeclaration] = {
            **self._personal_fields(model, category, purposes, retention, personal),
        }
        for name, reason in (technical or {}).items():
            if name in declared:
                raise ImproperlyConfigured(f"{model}.{name} is declared personal and technical")
            declared[name] = TechnicalField(_stated(reason, f"{model}.{name}"))
        self._model_fields_add(model, declared)

    def register_technical(self, model: str, fields: Mapping[str, str]) -> None:
        """Declare fields of a model that are not personal: field name to the reason."""
        self._model_fields_add(
            model,
            {
                name: TechnicalField(_stated(reason, f"{model}.{name}"))
                for name, reason in fields.items()
            },
        )

    def register_impersonal(self, *labels: str, because: str) -> None:
        """Declare whole models that hold nothing about a person, whatever field they get."""
        for model in labels:
            if model in self._impersonal or model in self._fields:
                raise ImproperlyConfigured(f"{model} is declared twice")
            self._impersonal[model] = ImpersonalModel(_stated(because, model))

    def register_place(
        self,
        place: str,
        *,
        category: Category,
        purposes: Sequence[Purpose],
        retention: RetentionClass,
        personal: Mapping[str, str],
    ) -> None:
        """Declare personal data outside the database; arguments as in `register`."""
        declared = self._personal_fields(place, category, purposes, retention, personal)
        known = self._places.setdefault(_stated(place, "a place"), {})
        _refuse_repeated(place, known, declared)
        known.update(declared)

    def register_service(self, words: str) -> None:
        """Declare what an installed app offers to customers: "TURN and STUN relay"."""
        self._services.append(_stated(words, "a service"))

    def services(self) -> list[str]:
        """What the installed apps offer, alphabetically."""
        return sorted(self._services)

    def field(self, model: str, name: str) -> FieldDeclaration | ImpersonalModel | None:
        """What was declared of one field; None where nobody did."""
        return self._fields.get(model, {}).get(name) or self._impersonal.get(model)

    def personal_fields(self) -> Iterator[tuple[str, str, PersonalField]]:
        """Every personal field: (model label or place, field name, declaration), sorted."""
        for holdings in (self._fields, self._places):
            for label in sorted(holdings):
                for name, declared in sorted(holdings[label].items()):
                    if isinstance(declared, PersonalField):
                        yield label, name, declared

    def data(self, category: Category) -> list[str]:
        """The words of section 3 for one category: those of the founding policy in its order
        first, then the others alphabetically; empty where nothing of it is collected."""
        words = {
            declared.datum
            for _, _, declared in self.personal_fields()
            if declared.category is category
        }
        founding = [word for word in FOUNDING_DATA[category] if word in words]
        return [*founding, *sorted(words.difference(founding))]

    def purposes(self) -> list[Purpose]:
        """The purposes that any personal field serves, in the policy's order."""
        used = {p for _, _, declared in self.personal_fields() for p in declared.purposes}
        return [purpose for purpose in Purpose if purpose in used]

    def retention_classes(self) -> set[RetentionClass]:
        """The retention classes that any personal field belongs to."""
        return {declared.retention for _, _, declared in self.personal_fields()}

    def problems(self, installed: Iterable[type[models.Model]]) -> list[str]:
        """Where declarations and models differ, one line each; empty when all is classified.

        Args:
            installed: every model of the project, `apps.get_models(include_auto_created=True)`.
        """
        fields = {
            model._meta.label: [field.name for field in model._meta.concrete_fields]
            for model in installed
            if not model._meta.proxy
        }
        unclassified = [
            f"{label}.{name} is not classified: say what it is in its app's personal_data.py "
            "(accounts/personal_data.py for third-party apps)"
            for label, names in fields.items()
            for name in names
            if self.field(label, name) is None
        ]
        unknown_models = [
            f"{label} is classified, but no such model is installed"
            for label in sorted({*self._fields, *self._impersonal}.difference(fields))
        ]
        unknown_fields = [
            f"{label}.{name} is classified, but {label} has no such field"
            for label, declared in sorted(self._fields.items())
            if label in fields
            for name in declared
            if name not in fields[label]
        ]
        return [*unclassified, *unknown_models, *unknown_fields]

    def _personal_fields(
        self,
        holder: str,
        category: Category,
        purposes: Sequence[Purpose],
        retention: RetentionClass,
        personal: Mapping[str, str],
    ) -> dict[str, PersonalField]:
        excess = set(purposes) - CATEGORY_PURPOSES[category]
        if excess or not purposes:
            raise ImproperlyConfigured(
                f"{holder}: {category} data may serve {', '.join(CATEGORY_PURPOSES[category])}; "
                f"not {', '.join(sorted(excess)) or 'nothing'}"
            )
        return {
            name: PersonalField(
                _stated(datum, f"{holder}.{name}"), category, tuple(purposes), retention
            )
            for name, datum in personal.items()
        }

    def _model_fields_add(self, model: str, declared: Mapping[str, FieldDeclaration]) -> None:
        if model in self._impersonal:
            raise ImproperlyConfigured(f"{model} is declared twice")
        known = self._fields.setdefault(model, {})
        _refuse_repeated(model, known, declared)
        known.update(declared)


def _refuse_repeated(holder: str, known: Iterable[str], declared: Iterable[str]) -> None:
    repeated = set(known).intersection(declared)
    if repeated:
        raise ImproperlyConfigured(f"{holder}: {', '.join(sorted(repeated))} declared twice")


def _stated(words: str, of: str) -> str:
    if not words.strip():
        raise ImproperlyConfigured(f"{of}: say in words what it is")
    return words


registry = Registry()
