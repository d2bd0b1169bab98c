"""secret_files makes a value once, keeps its files right, and never says it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import ROOT, Module, Result, listing

if TYPE_CHECKING:
    from pathlib import Path

module = Module(ROOT / "roles" / "stack_secrets" / "library" / "secret_files.py")
GIVEN = "hidden-4711-hidden"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return where the secrets are to be."""
    return tmp_path / "secrets"


def secret(**more: Any) -> dict[str, Any]:
    """Return a password with two readers, one of which takes a text around it."""
    return {
        "name": "cache_api",
        "files": [
            {"name": "plain", "owner": 991},
            {"name": "users", "owner": 992, "template": "user api on >{value} +get"},
        ],
        **more,
    }


def make(directory: Path, *secrets: dict[str, Any], **options: Any) -> Result:
    """Run the module, and fail if a value shows in anything that it printed."""
    result = module(directory=str(directory), secrets=list(secrets or [secret()]), **options)
    for path in directory.glob("*"):
        text = path.read_text(encoding="utf-8")
        for word in re.findall(r"[\w-]{12,}", text):
            assert word not in result.output or word in str(directory), "a value is in the output"
    assert "hidden-4711" not in result.output
    return result


def test_value_is_made_once_and_is_strong(directory: Path) -> None:
    assert make(directory).answer["paths"] == [
        str(directory), str(directory / "plain"), str(directory / "users")
    ]  # fmt: skip
    text = (directory / "plain").read_text()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}\n", text)
    assert (directory / "users").read_text() == f"user api on >{text.strip()} +get\n"
    assert not make(directory).changed
    assert (directory / "plain").read_text() == text


def test_two_values_are_not_alike(directory: Path, tmp_path: Path) -> None:
    make(directory)
    make(tmp_path / "other")
    assert (directory / "plain").read_text() != (tmp_path / "other/plain").read_text()


def test_files_are_for_their_readers_alone(directory: Path) -> None:
    make(directory)
    assert directory.stat().st_mode & 0o7777 == 0o700
    assert {name: about[:3] for name, about in listing(directory).items()} == {
        "plain": (0o400, 991, 991),
        "users": (0o400, 992, 992),
    }


def test_second_run_touches_nothing(directory: Path) -> None:
    make(directory)
    before = listing(directory.parent)
    result = make(directory)
    assert (result.changed, result.answer["paths"]) == (False, [])
    assert listing(directory.parent) == before


def test_check_mode_makes_nothing(directory: Path) -> None:
    assert make(directory, check=True).changed
    assert not directory.exists()


def test_check_mode_mends_nothing(directory: Path) -> None:
    make(directory)
    (directory / "plain").chmod(0o644)
    (directory / ".plain.leftover").write_text("x")
    before = listing(directory)
    assert make(directory, check=True).changed
    assert listing(directory) == before


def test_owners_and_modes_are_mended_and_values_kept(directory: Path) -> None:
    make(directory)
    text = (directory / "plain").read_text()
    (directory / "plain").chmod(0o644)
    os.chown(directory / "users", 0, 0)
    directory.chmod(0o755)
    assert len(make(directory).answer["paths"]) == 3
    assert listing(directory)["plain"][:3] == (0o400, 991, 991)
    assert listing(directory)["users"][:3] == (0o400, 992, 992)
    assert directory.stat().st_mode & 0o7777 == 0o700
    assert (directory / "plain").read_text() == text


def test_given_value_is_used(directory: Path) -> None:
    make(directory, secret(value=GIVEN))
    assert (directory / "plain").read_text() == f"{GIVEN}\n"
    assert not make(directory, secret(value=GIVEN)).changed
    assert not make(directory).changed


def test_missing_file_is_made_from_the_value_that_is_there(directory: Path) -> None:
    make(directory)
    text = (directory / "plain").read_text().strip()
    (directory / "users").unlink()
    assert make(directory).answer["paths"] == [str(directory / "users")]
    assert text in (directory / "users").read_text()


def test_text_around_a_value_follows_its_template(directory: Path) -> None:
    make(directory)
    changed = secret()
    changed["files"][1]["template"] = "user api on >{value} +get +set"
    assert make(directory, changed).answer["paths"] == [str(directory / "users")]


@pytest.mark.parametrize(("text", "says"), [
    ("", "is empty"),
    ("\n", "is empty"),
    (GIVEN, "is cut short"),
    ("hidden-4711\n", "has 11 characters; cache_api takes 12 or more"),
    (f"{GIVEN} {GIVEN}\n", "holds a space"),
])  # fmt: skip
def test_wrong_file_is_an_error_and_is_left(directory: Path, text: str, says: str) -> None:
    make(directory)
    (directory / "plain").write_text(text)
    before = listing(directory)
    assert re.match(f"{directory}/plain .*{says}", make(directory).message)
    assert listing(directory) == before


@pytest.mark.parametrize(("value", "says"), [
    ("hidden-4711", "The value given for cache_api has 11 characters"),
    (f"{GIVEN} {GIVEN}", "The value given for cache_api holds a space"),
    (f"{GIVEN}\n{GIVEN}", "The value given for cache_api holds a space"),
    (f"{GIVEN}é", "The value given for cache_api holds a space or a character outside"),
    ("", "The value given for cache_api has 0 characters"),
])  # fmt: skip
def test_wrong_given_value_is_an_error_that_does_not_say_it(
    directory: Path, value: str, says: str
) -> None:
    result = make(directory, secret(value=value))
    assert result.message.startswith(says)
    assert not directory.exists() or list(directory.iterdir()) == []


def test_file_that_is_no_text_is_an_error(directory: Path) -> None:
    make(directory)
    (directory / "plain").write_bytes(b"\xff" * 20 + b"\n")
    result = module(directory=str(directory), secrets=[secret()])
    assert result.message.startswith(f"{directory}/plain is no text. Restore it")


def test_file_in_the_place_of_the_directory_is_named(directory: Path) -> None:
    directory.write_text("mine")
    result = module(directory=str(directory), secrets=[secret()])
    assert result.message.startswith(f"{directory}: ")
    assert directory.read_text() == "mine"


def test_another_given_value_than_the_files_is_an_error(directory: Path) -> None:
    make(directory)
    before = listing(directory)
    message = make(directory, secret(value=GIVEN)).message
    assert message.startswith(f"{directory}/plain differs from the value given for cache_api")
    assert listing(directory) == before


def test_files_of_one_value_that_differ_are_an_error(directory: Path) -> None:
    two = secret(files=[{"name": name, "owner": 991} for name in ("one", "two")])
    make(directory, two)
    (directory / "two").write_text(f"{GIVEN}\n")
    assert make(directory, two).message.startswith(f"{directory}/one and {directory}/two differ")


def test_missing_value_that_is_in_use_is_an_error(directory: Path, tmp_path: Path) -> None:
    mark = tmp_path / "PG_VERSION"
    mark.write_text("17")
    message = make(directory, secret(used_by=[str(mark)])).message
    assert message.startswith(f"{directory}/plain is missing, and {mark} was set up with it.")
    assert list(directory.glob("*")) == []


def test_nothing_is_written_where_one_of_the_secrets_is_wrong(directory: Path) -> None:
    wrong = secret(name="other", value="short", files=[{"name": "other", "owner": 991}])
    assert make(directory, secret(), wrong).failed
    assert list(directory.glob("*")) == []


def test_leftovers_of_a_killed_run_are_removed(directory: Path) -> None:
    make(directory)
    (directory / ".plain.abcd").write_text(GIVEN)
    make(directory)
    assert {path.name for path in directory.iterdir()} == {"plain", "users"}


CERTIFICATE = {
    "name": "gateway",
    "kind": "certificate",
    "subjects": ["lab.example", "127.0.0.1", "lab.example"],
    "files": [{"name": "pem", "owner": 990}],
}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")
def test_certificate_is_for_its_subjects_and_has_its_key(directory: Path) -> None:
    make(directory, CERTIFICATE)
    pem = directory / "pem"
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(pem), "-noout", "-ext", "subjectAltName", "-pubkey"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "DNS:lab.example, IP Address:127.0.0.1" in shown
    key = subprocess.run(
        ["openssl", "pkey", "-in", str(pem), "-pubout"], capture_output=True, text=True, check=True
    ).stdout
    assert key in shown
    assert not make(directory, CERTIFICATE).changed


def test_missing_openssl_is_reported_and_nothing_written(directory: Path, tmp_path: Path) -> None:
    result = make(directory, CERTIFICATE, secret(), path=str(tmp_path / "none"))
    assert result.answer["missing_program"] == "openssl"
    assert list(directory.glob("*")) == []


def test_certificate_without_its_key_is_an_error(directory: Path) -> None:
    directory.mkdir()
    (directory / "pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert make(directory, CERTIFICATE).message.startswith(
        f"{directory}/pem lacks a certificate or"
    )
