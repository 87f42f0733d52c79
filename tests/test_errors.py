"""Passwords are hidden wherever a URL holds them, also where it is not written as it should be."""

import pytest

from nas.errors import hide_passwords, holds_password_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://nas:geheim@host/db", "postgresql://nas:***@host/db"),
        ("postgresql://nas:geh/eim@host/db", "postgresql://nas:***@host/db"),
        ("postgresql://nas:geh@eim/x@host:5432/db", "postgresql://nas:***@host:5432/db"),
        ("postgresql://n@s:geh eim@host/db", "postgresql://n@s:***@host/db"),
        ("postgresql://nas:1?pwd=geheim@host/db", "postgresql://nas:***"),
        ("postgresql://nas:geheim/db", "postgresql://nas:***"),
        ("postgresql://nas@/db?host=/tmp&password=geheim&x=1", "postgresql://nas@/db?host=/tmp&password=***"),
        ("postgresql://nas@/db?sslPassword=g@h:eim@x", "postgresql://nas@/db?sslPassword=***"),
        ("host=here password=geheim", "host=here password=***"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_passwords(url) == shown


@pytest.mark.parametrize(
    "text", ["postgresql://nas@host:5432/db", "postgresql://[::1]:5432/db", "sqlite:///x.db", "imagefolder:/a@b"]
)
def test_what_holds_no_password_stays(text: str) -> None:
    assert hide_passwords(text) == text


def test_a_part_of_a_password_is_found() -> None:
    url = "postgresql://nas:ab%40cd@ef@host/db"
    assert all(holds_password_of(f"no host '{part}'", url) for part in ("ef@host", "cd", "ab@cd"))
    assert not holds_password_of("no host", url)
