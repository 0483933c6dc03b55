"""The forms of accounts."""

from __future__ import annotations

from typing import Any, ClassVar

from allauth.account import forms as account_forms
from allauth.mfa.webauthn import forms as webauthn_forms
from django import forms
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse

from accounts.flows.signup import signup_complete
from accounts.models import ApiKey, Organisation, Project, User
from accounts.names import name_validate

EMAIL_LABEL = "E-mail address"


class SignupForm(account_forms.SignupForm):  # type: ignore[misc]
    """Everything that is asked of a person who wants an account; no birth date."""

    name = forms.CharField(
        label="Your name",
        max_length=User._meta.get_field("name").max_length,
        validators=[name_validate],
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    organisation = forms.CharField(
        label="Company or organisation",
        help_text="Who is billed. Leave it empty if that is you.",
        max_length=Organisation._meta.get_field("name").max_length,
        validators=[name_validate],
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )
    is_sixteen_or_older = forms.BooleanField(
        label="I am 16 or older",
        error_messages={
            "required": "Mindmore is for people aged 16 or older. Tick the box if you are. "
            "No account was made, and nothing you entered was stored."
        },
    )

    field_order = ("name", "email", "organisation", "password1", "is_sixteen_or_older")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = EMAIL_LABEL
        self.fields["password1"].help_text = (
            "At least 10 characters. Not a password that many people use, not digits only, "
            "and not like your name or address."
        )

    def signup(self, request: HttpRequest, user: User) -> None:
        """Called by allauth once the person is stored."""
        signup_complete(
            user=user,
            name=self.cleaned_data["name"],
            organisation_name=self.cleaned_data["organisation"],
        )

    @transaction.atomic
    def save(self, request: HttpRequest) -> User:
        """Store the person, the organisation and the address: all or nothing."""
        user: User = super().save(request)
        return user

    def try_save(self, request: HttpRequest) -> tuple[User | None, HttpResponse | None]:
        """As allauth's, and the same answer where another request took the address meanwhile."""
        try:
            saved: tuple[User | None, HttpResponse | None] = super().try_save(request)
        except IntegrityError:
            self.account_already_exists = True
            saved = super().try_save(request)
        return saved


class LoginForm(account_forms.LoginForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = EMAIL_LABEL
        self.fields["remember"].label = "Stay signed in on this device"


class AddEmailForm(account_forms.AddEmailForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = EMAIL_LABEL


class ResetPasswordForm(account_forms.ResetPasswordForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["email"].label = EMAIL_LABEL


class AddPasskeyForm(webauthn_forms.AddWebAuthnForm):  # type: ignore[misc]
    """A passkey signs in alone; without the tick it only stands beside the password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].validators.append(name_validate)
        self.fields["name"].help_text = "To tell it apart from others, for example “phone”."
        self.fields["passwordless"].label = "Sign in with it alone, without a password"
        self.fields["passwordless"].help_text = ""
        self.fields["passwordless"].initial = True


class NamedForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form with a field `name` for people to read."""

    def clean_name(self) -> str:
        """The name, where it is one."""
        name: str = self.cleaned_data["name"]
        name_validate(name)
        return name


class ProfileForm(NamedForm):
    class Meta:
        model = User
        fields: ClassVar[list[str]] = ["name"]
        labels: ClassVar[dict[str, str]] = {"name": "Your name"}
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "name": forms.TextInput(attrs={"autocomplete": "name"})
        }


class ProjectForm(NamedForm):
    """A new project; the organisation is asked for only where there is a choice."""

    class Meta:
        model = Project
        fields: ClassVar[list[str]] = ["name", "organisation"]
        labels: ClassVar[dict[str, str]] = {"name": "Name of the new project"}
        help_texts: ClassVar[dict[str, str]] = {
            "name": "For example production, or the name of your app."
        }
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "name": forms.TextInput(attrs={"autocomplete": "off"})
        }

    def __init__(self, *args: Any, organisations: list[Organisation], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.organisations = organisations
        if len(organisations) == 1:
            del self.fields["organisation"]
        else:
            field = self.fields["organisation"]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = Organisation.objects.filter(pk__in=[o.pk for o in organisations])
            field.empty_label = None

    @property
    def organisation(self) -> Organisation:
        """Whose project it will be."""
        chosen: Organisation = self.cleaned_data.get("organisation") or self.organisations[0]
        return chosen


class ApiKeyForm(NamedForm):
    class Meta:
        model = ApiKey
        fields: ClassVar[list[str]] = ["name"]
        labels: ClassVar[dict[str, str]] = {"name": "Name of the new key"}
        help_texts: ClassVar[dict[str, str]] = {
            "name": "Where it will be used, for example “signalling server”."
        }
        widgets: ClassVar[dict[str, forms.Widget]] = {
            "name": forms.TextInput(attrs={"autocomplete": "off"})
        }
