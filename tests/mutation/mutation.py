"""What a mutation is, and those there are: the data of mutations.yml.

A mutation has these keys; the first three have to be there.

name        what is broken, in words
breaks      the promises that no longer hold
changes     how, see below
noticed_by  the files of tests/acceptance that have to notice on a running stack, without `test_`
disruptive  the disruptive checks among these that it takes, as pytest's -k has it
restart     services that read what was changed only when they start
start       false: the running containers stay as they are

A change of the rendered project names a `file` and one of
    at, add       a value more in the list or mapping at that place
    at, set       another value in its place
    at, drop      the key or the item away
    replace       a text by another; in the string at a place where `at` is given
    mode, owner   as chmod and chown have them
    create        a file that is not there
where `at` is the way through the parsed YAML, with / between the keys; of a list it names the one
item that the pattern matches, with ? for a /. `{secret NAME}` stands for a secret's value.

A change of the repository names the file as `repository`, and has `replace`. Whatever else is done
on the machine are the shell commands `run` and `undo`, in the project's directory, with `{project}`
for its name.

A change that does not apply is an error, never a mutation that survived.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).with_name("mutations.yml")
VERBS = {"add", "set", "drop", "replace"}


class DoesNotApply(Exception):  # noqa: N818
    """What a change is about is not there, is there twice, or is so already."""


def replaced(text: str, old: str, new: str) -> str:
    """Return the text with the one occurrence of another replaced."""
    if text.count(old) != 1:
        raise DoesNotApply(f"{old!r} occurs {text.count(old)} times")
    return text.replace(old, new)


@dataclass(frozen=True)
class Edit:
    """A change to the parsed YAML of a rendered file."""

    file: str
    at: str
    verb: str
    value: Any

    def applied(self, text: str) -> str:
        """Return the file's new text; its opening comments stay."""
        head = "".join(line for line in text.splitlines(True)[:2] if line.startswith("#"))
        # A copy without YAML's anchors: what they share must change in one place alone.
        data = json.loads(json.dumps(yaml.safe_load(text)))
        *way, last = self.at.split("/")
        node = data
        for word in way:
            node = node[self._key(node, word)]
        self._change(node, self._key(node, last))
        return head + yaml.safe_dump(data, sort_keys=False, width=1000)

    def _key(self, node: Any, word: str) -> Any:
        if isinstance(node, dict) and word in node:
            return word
        if isinstance(node, list):
            found = [at for at, item in enumerate(node) if fnmatch.fnmatch(str(item), word)]
            if len(found) == 1:
                return found[0]
        raise DoesNotApply(f"{self.file}: there is not one {word!r} as in {self.at}")

    def _change(self, node: Any, key: Any) -> None:
        was = node[key]
        if self.verb == "drop":
            del node[key]
        elif self.verb == "set" and was != self.value:
            node[key] = self.value
        elif self.verb == "replace":
            node[key] = replaced(was, *self.value)
        elif self.verb == "add" and isinstance(was, list) and self.value not in was:
            was.append(self.value)
        elif self.verb == "add" and isinstance(was, dict) and not was.keys() & self.value.keys():
            was.update(self.value)
        elif self.verb == "add" and was is None:
            node[key] = self.value
        else:
            raise DoesNotApply(f"{self.file}: {self.at} is {was!r} already")


@dataclass(frozen=True)
class Replace:
    """Another text in a file of the project."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """Return the file's new text."""
        return replaced(text, self.old, self.new)


@dataclass(frozen=True)
class Access:
    """Another mode or owner of a file or directory."""

    file: str
    mode: str = ""
    owner: str = ""


@dataclass(frozen=True)
class Create:
    """A file more."""

    file: str
    text: str


@dataclass(frozen=True)
class Commands:
    """What is done on the machine, and undone."""

    run: str
    undo: str


@dataclass(frozen=True)
class Source:
    """Another text in the repository."""

    repository: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """Return the file's new text."""
        return replaced(text, self.old, self.new)


Change = Edit | Replace | Access | Create | Commands | Source


@dataclass(frozen=True)
class Mutation:
    """A broken promise."""

    name: str
    breaks: tuple[int | str, ...]
    changes: tuple[Change, ...]
    noticed_by: tuple[str, ...] = ()
    disruptive: str = ""
    restart: tuple[str, ...] = ()
    start: bool = True

    @property
    def sources(self) -> list[Source]:
        """The changes of the repository."""
        return [each for each in self.changes if isinstance(each, Source)]

    @property
    def rendered(self) -> list[Edit | Replace | Access]:
        """The changes of what a role renders: files, and no directories."""
        return [
            each
            for each in self.changes
            if isinstance(each, Edit | Replace | Access)
            and (each.file == ".env" or Path(each.file).suffix)
        ]

    def places(self, files: set[str]) -> list[list[str]]:
        """The ways to what it changes in the YAML of these files."""
        return [
            [*each.at.split("/"), *(each.value if each.at == "services" else ())]
            for each in self.changes
            if isinstance(each, Edit) and each.file in files
        ]


def _change(given: dict[str, Any]) -> Change:
    if "run" in given:
        return Commands(**given)
    rest = dict(given)
    if "at" in rest:
        (verb,) = VERBS & rest.keys()
        return Edit(verb=verb, value=rest.pop(verb), **rest)
    if "replace" in rest:
        old, new = rest.pop("replace")
        kind = Source if "repository" in rest else Replace
        return kind(old=old, new=new, **rest)
    if "create" in rest:
        return Create(text=rest.pop("create"), **rest)
    if not {"mode", "owner"} & rest.keys():
        raise ValueError(f"{given} changes nothing")
    return Access(**rest)


def _mutation(given: dict[str, Any]) -> Mutation:
    lists = {key: tuple(given[key]) for key in ("breaks", "noticed_by", "restart") if key in given}
    changes = tuple(_change(change) for change in given["changes"])
    return Mutation(**{**given, **lists, "changes": changes})


def load() -> list[Mutation]:
    """Return all mutations; a misspelt key is an error."""
    mutations = []
    for given in yaml.safe_load(DATA.read_text(encoding="utf-8")):
        try:
            mutations.append(_mutation(given))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{DATA.name}: {given.get('name', given)}: {error}") from error
    return mutations
