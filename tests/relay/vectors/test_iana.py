"""Our constants are those of IANA's registries."""

from __future__ import annotations

from types import ModuleType

import pytest

from relay.core import attributes, error_codes, integrity, nonce, stun
from tests.relay.vectors import iana

CLASSES = ("REQUEST", "INDICATION", "SUCCESS", "ERROR")
# Not registered: what a widespread client sends in the place of a registered type.
UNREGISTERED = {"ADDITIONAL_ADDRESS_FAMILY_OLD"}
NAMES_OF_OUR_OWN = {"UNSUPPORTED_TRANSPORT": "UNSUPPORTED_TRANSPORT_PROTOCOL"}


def constants(module: ModuleType, *, without: set[str]) -> dict[str, int]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int) and name not in without
    }


def spelled(name: str) -> str:
    """A registered name as we spell it."""
    return name.upper().replace("-", "_").replace(" ", "_")


def test_attribute_types_are_the_registered_ones() -> None:
    ours = constants(attributes, without={"COMPREHENSION_OPTIONAL"} | UNREGISTERED)
    registered = {spelled(name): number for number, name in iana.ATTRIBUTES.items()}
    assert ours == {name: registered[name] for name in ours}


def test_every_understood_attribute_is_required_and_registered() -> None:
    for kind in attributes.UNDERSTOOD_IN_DISCOVERY:
        assert kind < attributes.COMPREHENSION_OPTIONAL
        assert kind in iana.ATTRIBUTES


def test_error_codes_are_the_registered_ones() -> None:
    ours = constants(error_codes, without=set())
    registered = {spelled(name): number for number, name in iana.ERROR_CODES.items()}
    assert ours == {name: registered[NAMES_OF_OUR_OWN.get(name, name)] for name in ours}


def test_reason_phrases_are_the_recommended_ones() -> None:
    ours = constants(error_codes, without=set()).values()
    assert {code: iana.ERROR_CODES[code] for code in ours} == error_codes.REASONS


@pytest.mark.parametrize("method", iana.METHODS)
@pytest.mark.parametrize(("number", "name"), list(enumerate(CLASSES)))
def test_message_type_is_made_of_method_and_class_as_in_appendix_a(
    method: int, number: int, name: str
) -> None:
    upper, middle, low = method & 0x1F80, method & 0x0070, method & 0x000F
    expected = upper << 2 | middle << 1 | low | (number & 2) << 7 | (number & 1) << 4
    assert method | getattr(stun, name) == expected


def test_security_features_are_the_registered_bits_from_the_least_significant_one_on() -> None:
    ours = [nonce.FEATURE_PASSWORD_ALGORITHMS, nonce.FEATURE_USERNAME_ANONYMITY]
    assert ours == [1 << number for number in iana.SECURITY_FEATURES]


@pytest.mark.parametrize(("number", "name"), iana.METHODS.items())
def test_methods_are_the_registered_ones(number: int, name: str) -> None:
    spelled_name = "".join(f"_{letter}" if letter.isupper() else letter for letter in name)
    assert getattr(stun, spelled_name.strip("_").upper()) == number


def test_password_algorithms_are_the_registered_ones() -> None:
    ours = {number: name.replace("-", "") for number, name in iana.PASSWORD_ALGORITHMS.items()}
    assert ours == {integrity.MD5: "MD5", integrity.SHA256: "SHA256"}
