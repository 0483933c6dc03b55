"""`manage.py relay_revoke CREDENTIAL`: refuse a credential from now on, and end its calls."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from relay.management.shell import NOT_DONE, RelayCommand, project_of
from relay.services.control import ControlError, credential_revoke


class Command(RelayCommand):
    help = (
        "Refuse a credential from now on, on every relay, and end its calls at once; where its"
        " project says `drain` they live out their lifetimes. There is no way back: mint another."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("credential", metavar="CREDENTIAL", help="its id, as the API gave it")
        parser.add_argument(
            "--project", metavar="PRJ", required=True, help="whose it is, by its id"
        )

    def act(self, options: Mapping[str, Any]) -> None:
        project, credential = project_of(options["project"]), options["credential"]
        assert project is not None, "the command asks for one"
        try:
            credential_revoke(project=project, credential=credential, now=timezone.now())
        except ControlError as error:
            raise CommandError(str(error), returncode=NOT_DONE) from error
        if options["json"]:
            self.say_json({"project": project.public_id, "credential": credential})
        else:
            self.say(f"{credential} is revoked: every relay hears it within two seconds")
