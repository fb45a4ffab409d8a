"""The servers that the contract is checked on: an open project, and the same one with a login required."""

import sys
from base64 import b64encode
from collections.abc import Iterator
from typing import Self

import pytest

from tests.support.databases import KINDS, Databases
from tests.support.stack import Process, Stack

SETTINGS = "tests.integration.contract.settings"
MEMBERS_SETTINGS = "tests.integration.contract.members_settings"

PASSWORD = "secret"


def basic(name: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{name}:{PASSWORD}".encode()).decode()}


# The header of each user; None: without credentials.
BASIC: dict[str | None, dict[str, str]] = {name: basic(name) for name in ("ann", "bob", "staff")}
BASIC[None] = {}

MAKE_USERS = f"""
from django.contrib.auth.models import User
for name in ("ann", "bob"):
    User.objects.create_user(name, password={PASSWORD!r})
User.objects.create_user("staff", password={PASSWORD!r}, is_staff=True)
"""


class ContractStack(Stack):
    """A stack with users, and a second web server at `members_url` that requires a login."""

    settings = SETTINGS
    members_port = 0

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"DJANGO_SETTINGS_MODULE": self.settings}

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            self.manage("shell", "--verbosity=0", "-c", MAKE_USERS)
            self._start_members()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_members(self) -> None:
        command = [sys.executable, "-m", "daphne", "--port", "0", "tests.project.asgi:application"]
        environment = self.environment | {"DJANGO_SETTINGS_MODULE": MEMBERS_SETTINGS}
        web = self.processes["members"] = Process("members", command, environment, self.directory / "members.log")
        self.members_port = int(web.wait_for_output(r"Listening on TCP address 127\.0\.0\.1:(\d+)")[1])

    @property
    def members_url(self) -> str:
        return f"http://127.0.0.1:{self.members_port}"

    @property
    def members_ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.members_port}/tasks/ws/"

    def login(self, name: str) -> dict[str, str]:
        """The cookies of a browser after that user's login: the session and the CSRF token."""
        with self.client() as browser:
            browser.get("/admin/login/")
            form = {"username": name, "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
            browser.post("/admin/login/?next=/", data=form)
            return dict(browser.cookies)


@pytest.fixture(scope="session", params=KINDS)
def stack(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ContractStack]:
    with ContractStack(databases.new(request.param), tmp_path_factory.mktemp(f"contract-{request.param}")) as stack:
        yield stack
