"""What is in a database, in a form that two of them can be compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A row's checksum is the first 60 bits of its text's MD5; a table's is the sum, so that neither
# order nor size matters. All in one snapshot, with the settings that a row's text depends on.
SCRIPT = r"""
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'; SET LOCAL IntervalStyle = 'iso_8601';
SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
SELECT format(
    'SELECT %L, count(*), coalesce(sum((''x'' || left(md5(t::text), 15))::bit(60)::bigint), 0)'
    ' FROM ONLY %I.%I AS t', nspname || '.' || relname, nspname, relname)
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
 WHERE relkind IN ('r', 'm') AND nspname !~ '^(pg_|information_schema$)'
 ORDER BY nspname, relname
\gexec
COMMIT;
"""


class Table(NamedTuple):
    """A table's name with its schema, its rows, and a checksum of what they say."""

    name: str
    rows: int
    checksum: str


def read(ask: Callable[[str], str]) -> list[Table]:
    """Read every row of every table."""
    found = []
    for line in ask(SCRIPT).splitlines():
        name, rows, checksum = line.rsplit("|", 2)
        found.append(Table(name, int(rows), f"{int(checksum):x}"))
    return found


def lines(tables: Sequence[Table]) -> list[str]:
    """Return them for people."""
    width = max((len(table.name) for table in tables), default=0)
    return [f"{each.name:<{width}}  {each.rows:>9} rows  {each.checksum}" for each in tables]
