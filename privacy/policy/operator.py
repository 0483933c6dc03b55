"""Who answers for this installation, as the settings say: the controller, the processors."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

NO_PROCESSORS = "none"


@dataclass(frozen=True)
class Processor:
    """Somebody who processes personal data on the operator's behalf (Art. 28 GDPR)."""

    name: str
    purpose: str
    location: str


# Known by a key. Hetzner has data centres on three continents: the policy promises these two.
PROCESSORS = {
    "hetzner": Processor(
        "Hetzner Online GmbH",
        "Cloud hosting and infrastructure services",
        "Germany (Nuremberg, Falkenstein)",
    ),
}


@dataclass(frozen=True)
class Operator:
    """What the policy says of the operator.

    Attributes:
        service_name: what the service is called, "Mindmore.ai".
        host: where the website is.
        https: whether it is reached over TLS only.
        legal_entity: name of the company or person.
        legal_address: its registered address, in one line.
        dpo_email: where the data protection officer is reached.
        server_location: where the servers stand, "Germany".
        processors: each a key of `PROCESSORS`, or "name | purpose | location"; or only `none`.
    """

    service_name: str
    host: str
    https: bool
    legal_entity: str
    legal_address: str
    dpo_email: str
    server_location: str
    processors: tuple[str, ...]

    def processors_used(self) -> list[Processor]:
        """The processors in use, in the order of the settings.

        Raises:
            ValueError: one is neither known by its key nor described.
        """
        return [processor_parse(words) for words in self.processors if words != NO_PROCESSORS]


def processor_parse(words: str) -> Processor:
    """Read one processor of MINDMORE_PROCESSORS: "hetzner", or "name | purpose | location".

    Raises:
        ValueError: it is neither.
    """
    if words in PROCESSORS:
        return PROCESSORS[words]
    name, purpose, location = (word.strip() for word in words.split("|"))
    if not (name and purpose and location):
        raise ValueError(words)
    return Processor(name, purpose, location)


def operator_load() -> Operator:
    """The operator of this installation."""
    return Operator(
        service_name=settings.SERVICE_NAME,
        host=settings.SITE_URL.split("://")[1],
        https=settings.SECURE,
        legal_entity=settings.LEGAL_ENTITY,
        legal_address=settings.LEGAL_ADDRESS,
        dpo_email=settings.DPO_EMAIL,
        server_location=settings.SERVER_LOCATION,
        processors=tuple(settings.PROCESSORS),
    )


def operator_problems(operator: Operator) -> list[str]:
    """What keeps this operator from publishing a policy, one line each."""
    stated = {
        "MINDMORE_SERVICE_NAME": operator.service_name,
        "MINDMORE_LEGAL_ENTITY": operator.legal_entity,
        "MINDMORE_LEGAL_ADDRESS": operator.legal_address,
        "MINDMORE_DPO_EMAIL": operator.dpo_email,
        "MINDMORE_SERVER_LOCATION": operator.server_location,
        "MINDMORE_PROCESSORS": "; ".join(operator.processors),
    }
    return [
        *(f"{name} is empty" for name, value in stated.items() if not value.strip()),
        *(
            f"{name} is a placeholder: {value}"
            for name, value in stated.items()
            if set("[]").intersection(value)
        ),
        *(_processor_problem(words) for words in operator.processors if not _is_readable(words)),
        *(
            ["MINDMORE_DPO_EMAIL is not an e-mail address"]
            if operator.dpo_email and "@" not in operator.dpo_email
            else []
        ),
        *(
            ["MINDMORE_PROCESSORS names processors and `none`"]
            if NO_PROCESSORS in operator.processors and len(operator.processors) > 1
            else []
        ),
    ]


def _is_readable(words: str) -> bool:
    try:
        return words == NO_PROCESSORS or bool(processor_parse(words))
    except ValueError:
        return False


def _processor_problem(words: str) -> str:
    known = ", ".join([*PROCESSORS, NO_PROCESSORS])
    return f"MINDMORE_PROCESSORS: {words!r} is neither one of {known} nor name | purpose | location"
