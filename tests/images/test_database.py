"""The database image keeps the official postgres image's contract, and two promises more."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from conftest import Container, Image, Result, Yard

DATA = "/var/lib/postgresql/data"
SCRIPTS = "/docker-entrypoint-initdb.d"
MARKER = f"{DATA}/.initialising"
SOCKET_TMPFS = "--tmpfs=/var/run/postgresql"
LOCKED_DOWN = (
    "--user=999:999",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    SOCKET_TMPFS,
)
PASSWORD = {"POSTGRES_PASSWORD": "secret"}

# Each value has what a careless script would split, expand or unquote.
HARD = {
    "POSTGRES_USER": "owner  with spaces",
    "POSTGRES_PASSWORD": r"""it's a "quoted" \n $HOME `id` $(id) password """,
    "POSTGRES_DB": """host=nowhere "db" o'clock""",
    "POSTGRES_INITDB_ARGS": """--data-checksums -T 'german' -c "cluster_name=a  b" """,
    "POSTGRES_HOST_AUTH_METHOD": "password",
}


def ready(container: Container) -> None:
    """Wait until the server answers over TCP, as the stack's health check does."""
    container.wait_while_running(
        lambda: container.execute("pg_isready", "--host=127.0.0.1").code == 0, "the server"
    )


def sql(container: Container, query: str, user: str = "postgres", database: str = "") -> str:
    """Rows of a query over the local socket, fields separated by |."""
    result = container.execute(
        "psql", "-XAtq", "--set=ON_ERROR_STOP=1", f"--username={user}",
        stdin=query, env={"PGDATABASE": database or user},
    )  # fmt: skip
    assert result.code == 0, result.err
    return result.out.strip()


def over_network(container: Container, password: str, env: Mapping[str, str]) -> Result:
    """`SELECT 1` by way of the container's network address, the password given."""
    return container.execute(
        "psql", "-XAtw", f"--host={container.address()}", "--command=SELECT 1",
        env={"PGPASSWORD": password, "PGUSER": "postgres", "PGDATABASE": "postgres", **env},
    )  # fmt: skip


def on(volume: str) -> str:
    """Option that mounts a volume as the data directory."""
    return f"--volume={volume}:{DATA}"


def listing(yard: Yard, image: Image, volume: str) -> str:
    """Names, owners, sizes and times of all that is in a volume."""
    return yard.run(
        image.reference, "find", "/v", "-printf", r"%P %U %m %s %T@\n",
        options=[f"--volume={volume}:/v"],
    ).out  # fmt: skip


def one_line_of(result: Result) -> str:
    """Return the refusal: a non-zero exit and one line, the only output."""
    assert result.code not in (0, 125, 126, 127), result
    lines = (result.out + result.err).strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """Directory for init scripts, readable by the container's user."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "initdb.d"
    directory.mkdir(mode=0o755)
    return directory


def mounted(scripts: Path) -> str:
    """Option that mounts a directory as the init scripts' one."""
    return f"--volume={scripts}:{SCRIPTS}:ro"


@pytest.fixture(scope="session")
def plain(shared_yard: Yard, database_image: Image) -> Container:
    """Start as the official documents say: as root, with a password, nothing else."""
    container = shared_yard.start(database_image.reference, env=PASSWORD)
    ready(container)
    return container


@pytest.fixture(scope="session")
def stack_like(shared_yard: Yard, database_image: Image) -> Container:
    """Start as the stack does: 999, read-only root, no capabilities; with server flags."""
    container = shared_yard.start(
        database_image.reference,
        "postgres", "-c", "shared_preload_libraries=pg_stat_statements", "--max_connections=37",
        options=[*LOCKED_DOWN, on(shared_yard.volume())], env=PASSWORD,
    )  # fmt: skip
    ready(container)
    return container


@pytest.fixture(scope="session")
def cluster(shared_yard: Yard, database_image: Image) -> str:
    """Volume with a complete cluster, for one test's servers after the other's."""
    volume = shared_yard.volume()
    container = shared_yard.start(database_image.reference, options=[on(volume)], env=PASSWORD)
    ready(container)
    container.stop()
    return volume


@pytest.fixture(scope="session", params=["variables", "files"])
def configured(
    request: pytest.FixtureRequest,
    shared_yard: Yard,
    database_image: Image,
    tmp_path_factory: pytest.TempPathFactory,
) -> Container:
    """Every variable set to a hard value: directly, or through its _FILE twin."""
    env: dict[str, str] = HARD
    options: list[str] = []
    if request.param == "files":
        directory = tmp_path_factory.mktemp("secrets")
        env = {}
        for name, value in HARD.items():
            (directory / name).write_text(value + "\n")
            # As the stack's secrets are: for the one uid that reads them.
            (directory / name).chmod(0o400)
            options.append(f"--volume={directory / name}:/run/secrets/{name}:ro")
            env[f"{name}_FILE"] = f"/run/secrets/{name}"
    container = shared_yard.start(database_image.reference, options=options, env=env)
    ready(container)
    return container


# --- variables ---


def test_user_is_the_superuser(configured: Container) -> None:
    rows = sql(
        configured,
        "SELECT rolname FROM pg_roles WHERE rolsuper",
        HARD["POSTGRES_USER"],
        "postgres",
    )
    assert rows == HARD["POSTGRES_USER"]


def test_database_is_created_for_the_user(configured: Container) -> None:
    query = "SELECT datname, pg_get_userbyid(datdba) FROM pg_database ORDER BY oid DESC LIMIT 1"
    rows = sql(configured, query, HARD["POSTGRES_USER"], "postgres")
    assert rows == f"{HARD['POSTGRES_DB']}|{HARD['POSTGRES_USER']}"


def test_password_opens_the_database_and_another_does_not(configured: Container) -> None:
    names = {"PGUSER": HARD["POSTGRES_USER"], "PGDATABASE": HARD["POSTGRES_DB"]}
    right = over_network(configured, HARD["POSTGRES_PASSWORD"], names)
    assert (right.code, right.out) == (0, "1\n"), right.err
    wrong = over_network(configured, HARD["POSTGRES_PASSWORD"].strip(), names)
    assert wrong.code != 0
    assert "password authentication failed" in wrong.err


def test_initdb_args_reach_initdb_with_their_quotes_understood(configured: Container) -> None:
    query = "SHOW data_checksums; SHOW default_text_search_config; SHOW cluster_name"
    rows = sql(configured, query, HARD["POSTGRES_USER"], "postgres")
    assert rows.splitlines() == ["on", "pg_catalog.german", "a  b"]


def test_host_auth_method_is_the_one_for_all_hosts(configured: Container) -> None:
    last = configured.output_of("tail", "-n1", f"{DATA}/pg_hba.conf")
    assert last.split() == ["host", "all", "all", "all", "password"]


def test_only_a_password_gives_user_and_database_postgres(plain: Container) -> None:
    assert sql(plain, "SELECT current_user, current_database()") == "postgres|postgres"


def test_hosts_need_scram_and_the_socket_nothing(plain: Container) -> None:
    assert sql(plain, "SELECT rolpassword ~ '^SCRAM-SHA-256' FROM pg_authid WHERE rolsuper") == "t"
    rules = sql(plain, "SELECT type, auth_method FROM pg_hba_file_rules GROUP BY 1, 2 ORDER BY 1")
    assert rules.splitlines() == ["host|scram-sha-256", "local|trust"]
    assert over_network(plain, "secret", {}).code == 0
    assert over_network(plain, "wrong", {}).code != 0


@pytest.mark.parametrize("name", HARD)
def test_a_variable_and_its_file_twin_together_are_refused(
    yard: Yard, database_image: Image, name: str
) -> None:
    env = {**PASSWORD, name: "x", f"{name}_FILE": "/run/secrets/x"}
    line = one_line_of(yard.run(database_image.reference, env=env))
    assert f"{name} and {name}_FILE are both set" in line


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({}, "POSTGRES_PASSWORD_FILE"),
        ({"POSTGRES_HOST_AUTH_METHOD": "md5"}, "POSTGRES_PASSWORD"),
        ({"POSTGRES_PASSWORD_FILE": "/run/secrets/none"}, "/run/secrets/none"),
        ({"POSTGRES_PASSWORD_FILE": "/dev/null"}, "POSTGRES_PASSWORD_FILE=/dev/null"),
        ({"POSTGRES_PASSWORD": "two\nlines"}, "POSTGRES_PASSWORD"),
        ({**PASSWORD, "PGDATA": "relative"}, "PGDATA=relative"),
        ({**PASSWORD, "POSTGRES_USER": 'the "user"'}, 'POSTGRES_USER=the "user"'),
        ({**PASSWORD, "POSTGRES_USER": "$HOME"}, "POSTGRES_USER=$HOME"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    yard: Yard, database_image: Image, env: Mapping[str, str], named: str
) -> None:
    assert named in one_line_of(yard.run(database_image.reference, env=env))


def test_trust_needs_no_password_and_lets_every_host_in(yard: Yard, database_image: Image) -> None:
    container = yard.start(database_image.reference, env={"POSTGRES_HOST_AUTH_METHOD": "trust"})
    ready(container)
    assert over_network(container, "", {}).code == 0
    assert "POSTGRES_HOST_AUTH_METHOD=trust lets every host in" in container.logs()


def test_initdb_args_are_never_run_as_commands(yard: Yard, database_image: Image) -> None:
    env = {**PASSWORD, "POSTGRES_INITDB_ARGS": '--locale="$(echo run >&2)" "`echo run >&2`"'}
    result = yard.run(database_image.reference, env=env)
    assert result.code == 1
    assert "run" not in (result.out + result.err).splitlines()
    env["POSTGRES_INITDB_ARGS"] = "--locale='C"
    result = yard.run(database_image.reference, env=env)
    assert result.code == 1
    assert "database: POSTGRES_INITDB_ARGS=--locale='C cannot be split" in result.err


def test_no_argument_or_environment_shows_the_password(
    yard: Yard, database_image: Image, scripts: Path
) -> None:
    spy = scripts.parent / "initdb"
    spy.write_text(
        "#!/bin/sh\n"
        'echo "arguments: $*"\n'
        'exec /usr/lib/postgresql/17/bin/initdb "$@"\n'
    )  # fmt: skip
    spy.chmod(0o755)
    (scripts / "10.sh").write_text(
        'echo "script sees $POSTGRES_PASSWORD"; cat /proc/[0-9]*/cmdline | tr "\\0" " " || :\n'
    )
    container = yard.start(
        database_image.reference,
        options=[f"--volume={spy}:/usr/local/bin/initdb:ro", mounted(scripts)],
        env={"POSTGRES_PASSWORD": "very-secret"},
    )
    ready(container)
    assert "arguments: --" in container.logs()
    assert container.logs().count("very-secret") == 1
    assert "script sees very-secret" in container.logs()
    # Its own user's right: without ptrace not even root may read it.
    server = container.execute("cat", "/proc/1/environ", "/proc/1/cmdline", user="999")
    assert "PGDATA=" in server.out
    assert "very-secret" not in server.out


# --- init scripts ---


def test_init_scripts_run_in_order_on_the_first_start_only(
    yard: Yard, database_image: Image, scripts: Path
) -> None:
    (scripts / "10.sql").write_text("CREATE TABLE seen (id serial, what text);\n")
    with gzip.open(scripts / "20.sql.gz", "wt") as compressed:
        compressed.write("INSERT INTO seen (what) VALUES ('20 gz');\n")
    executable = scripts / "30.sh"
    executable.write_text(
        "#!/bin/sh\n"
        'psql --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" '
        "--command \"INSERT INTO seen (what) VALUES ('30 by $(basename \"$0\")')\"\n"
        "export FROM_30=lost\n"
    )  # fmt: skip
    executable.chmod(0o755)
    (scripts / "40.sh").write_text(
        'echo "INSERT INTO seen (what) VALUES (\'40 by $(basename "$0")$FROM_30\')"'
        " | docker_process_sql\n"
        "export FROM_40=kept\n"
    )
    (scripts / "50.sh").write_text(
        "echo \"INSERT INTO seen (what) VALUES ('50 $FROM_40')\" | docker_process_sql\n"
    )
    (scripts / "README.txt").write_text("not a script\n")
    env = {**PASSWORD, "POSTGRES_DB": "app"}
    container = yard.start(database_image.reference, options=[mounted(scripts)], env=env)
    ready(container)
    expected = ["20 gz", "30 by 30.sh", "40 by docker-entrypoint.sh", "50 kept"]
    query = "SELECT what FROM seen ORDER BY id"
    assert sql(container, query, database="app").splitlines() == expected
    assert f"ignoring {SCRIPTS}/README.txt" in container.logs()
    container.stop()
    container.start()
    ready(container)
    assert sql(container, query, database="app").splitlines() == expected


FAILING = {
    "error.sql": "CREATE TABLE half (); SELECT 1/0; CREATE TABLE rest ();",
    "false.sh": "false\necho went-on\n",
    "exit.sh": "exit 0\n",
    "unknown.sql.xz": "anything",
}


def test_a_failing_init_script_ends_the_container(
    yard: Yard, database_image: Image, scripts: Path
) -> None:
    containers = {}
    for name, text in FAILING.items():
        (scripts / name).write_text(text)
        alone = f"--volume={scripts / name}:{SCRIPTS}/{name}:ro"
        containers[name] = yard.start(database_image.reference, options=[alone], env=PASSWORD)
    for name, container in containers.items():
        assert container.ending() not in (0, 137)
        assert f"failed at {SCRIPTS}/{name}" in container.logs()
        assert "went-on" not in container.logs()
        assert "listening on IPv4" not in container.logs()


def test_a_failed_first_start_counts_for_nothing(
    yard: Yard, database_image: Image, scripts: Path
) -> None:
    script = scripts / "10.sql"
    script.write_text(FAILING["error.sql"])
    container = yard.start(database_image.reference, options=[mounted(scripts)], env=PASSWORD)
    assert container.ending() != 0
    script.write_text("CREATE TABLE whole ();")
    container.start()
    ready(container)
    assert sql(container, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == "whole"


# --- a first start that is cut short ---


@pytest.mark.parametrize("moment", ["running bootstrap script", "in the middle of the scripts"])
def test_a_kill_during_initialisation_starts_it_over(
    yard: Yard, database_image: Image, scripts: Path, moment: str
) -> None:
    script = scripts / "10.sql"
    script.write_text(
        f"CREATE TABLE first ();\n\\echo 'in the middle of the scripts'\n"
        f"SELECT pg_sleep({300 if 'scripts' in moment else 0});\n"
    )
    container = yard.start(
        database_image.reference,
        options=[*LOCKED_DOWN, mounted(scripts), on(yard.volume())], env=PASSWORD,
    )  # fmt: skip
    container.wait_for_log(moment)
    if "scripts" in moment:
        # The socket answers, TCP does not: a health check cannot pass yet.
        assert container.execute("pg_isready").code == 0
        assert container.execute("pg_isready", "--host=127.0.0.1").code != 0
    assert container.execute("test", "-d", MARKER).code == 0
    container.kill()
    script.write_text("CREATE TABLE second ();")
    container.start()
    ready(container)
    assert "cut short: starting it over" in container.logs()
    query = "SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'public'"
    assert sql(container, query) == "second"
    assert container.execute("test", "-e", MARKER).code == 1
    assert over_network(container, "secret", {}).code == 0


def test_a_stop_during_initialisation_is_quick_and_clean(
    yard: Yard, database_image: Image, scripts: Path
) -> None:
    script = scripts / "10.sh"
    script.write_text("sleep 300\n")
    container = yard.start(database_image.reference, options=[mounted(scripts)], env=PASSWORD)
    container.wait_for_log("running")
    code, seconds = container.stop()
    assert (code, seconds < 8) == (0, True)
    assert "stopped during the first initialisation" in container.logs()
    script.write_text("true\n")
    container.start()
    ready(container)


def test_a_complete_cluster_is_never_started_over(
    yard: Yard, database_image: Image, cluster: str
) -> None:
    container = yard.start(database_image.reference, options=[on(cluster)])
    ready(container)
    sql(container, "CREATE TABLE kept ()")
    container.kill()
    container.start()
    ready(container)
    assert sql(container, "SELECT count(*) FROM kept") == "0"


# --- one server on a data directory, and the right one ---


@pytest.mark.parametrize("options", [[], LOCKED_DOWN], ids=["root", "999"])
def test_second_server_on_the_same_volume_is_refused(
    yard: Yard, database_image: Image, cluster: str, options: Sequence[str]
) -> None:
    first = yard.start(database_image.reference, options=[on(cluster)])
    ready(first)
    before = listing(yard, database_image, cluster)
    second = yard.run(database_image.reference, options=[*options, on(cluster)])
    assert f"PGDATA={DATA} is in use by another server" in one_line_of(second)
    assert listing(yard, database_image, cluster) == before
    assert sql(first, "SELECT 1") == "1"
    first.kill()
    third = yard.start(database_image.reference, options=[*options, on(cluster)])
    ready(third)
    assert sql(third, "SELECT 1") == "1"


def test_second_server_is_refused_while_the_first_initialises(
    yard: Yard, database_image: Image, scripts: Path
) -> None:
    volume = yard.volume()
    (scripts / "10.sql").write_text("SELECT pg_sleep(2); CREATE TABLE whole ();")
    options = [on(volume), mounted(scripts)]
    first = yard.start(database_image.reference, options=options, env=PASSWORD)
    first.wait_for_log("running")
    second = yard.run(database_image.reference, options=options, env=PASSWORD)
    assert "is in use by another server" in one_line_of(second)
    ready(first)
    assert sql(first, "SELECT count(*) FROM whole") == "0"


@pytest.mark.parametrize(
    ("prepare", "named"),
    [
        ("echo 16 > PG_VERSION; touch postgresql.conf", "made by PostgreSQL 16 and this is 17"),
        ("echo hello > letter", "has files but no PG_VERSION (letter"),
        ("mkdir lost+found", f"such as {DATA}/pgdata"),
    ],
)
def test_data_of_another_kind_is_refused_and_left_alone(
    yard: Yard, database_image: Image, prepare: str, named: str
) -> None:
    volume = yard.volume()
    prepared = yard.run(
        database_image.reference, "sh", "-c", f"cd {DATA} && {prepare} && chown -R 999:999 .",
        options=[on(volume)],
    )  # fmt: skip
    assert prepared.code == 0, prepared.err
    before = listing(yard, database_image, volume).splitlines()
    for how in ((), LOCKED_DOWN):
        result = yard.run(database_image.reference, options=[*how, on(volume)], env=PASSWORD)
        assert named in one_line_of(result)
    # But for the directory's own line: its mode may have become what PostgreSQL wants.
    assert listing(yard, database_image, volume).splitlines()[1:] == before[1:]


def test_a_directory_below_lost_and_found_works(yard: Yard, database_image: Image) -> None:
    volume = yard.volume()
    yard.run(database_image.reference, "mkdir", f"{DATA}/lost+found", options=[on(volume)])
    env = {**PASSWORD, "PGDATA": f"{DATA}/pgdata/"}
    container = yard.start(database_image.reference, options=[on(volume)], env=env)
    ready(container)
    assert sql(container, "SHOW data_directory") == f"{DATA}/pgdata"


# --- how it is started and stopped ---


def test_started_as_root_it_prepares_the_directory_and_steps_down(
    yard: Yard, database_image: Image, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o755)
    secret = tmp_path / "password"
    secret.write_text("from root's file\n")
    secret.chmod(0o400)
    container = yard.start(
        database_image.reference,
        options=[on(str(directory)), f"--volume={secret}:/run/secrets/password:ro"],
        env={"POSTGRES_PASSWORD_FILE": "/run/secrets/password"},
    )
    ready(container)
    uids = container.output_of("sh", "-c", "stat -c %u:%g /proc/[0-9]*/ | sort -u", stdin="")
    assert "999:999" in uids.split()
    assert container.output_of("stat", "-c", "%u:%g", "/proc/1") == "999:999"
    status = container.output_of("cat", "/proc/1/status")
    assert "CapEff:\t0000000000000000" in status
    assert (directory.stat().st_uid, oct(directory.stat().st_mode)) == (999, "0o40700")
    assert over_network(container, "from root's file", {}).code == 0


def test_started_as_999_without_rights_it_runs(stack_like: Container) -> None:
    sql(stack_like, "CREATE TABLE written (); DROP TABLE written")
    assert stack_like.output_of("stat", "-c", "%u:%g", "/proc/1") == "999:999"
    assert stack_like.execute("touch", "/etc/x").code != 0


def test_without_any_tmpfs_it_runs_and_says_where_the_socket_is(
    yard: Yard, database_image: Image
) -> None:
    options = [option for option in LOCKED_DOWN if option != SOCKET_TMPFS]
    container = yard.start(database_image.reference, options=options, env=PASSWORD)
    ready(container)
    assert container.execute("psql", "-Upostgres", "--host=/dev/shm", "-c", "SELECT 1").code == 0
    assert "mount a tmpfs on /var/run/postgresql" in container.logs()


@pytest.mark.parametrize("how", [[], ["--init"], [*LOCKED_DOWN], [*LOCKED_DOWN, "--init"]])
def test_stop_ends_it_with_exit_0_though_a_session_is_open(
    yard: Yard, database_image: Image, cluster: str, how: Sequence[str]
) -> None:
    container = yard.start(database_image.reference, options=[*how, on(cluster)])
    ready(container)
    container.execute_detached("psql", "-Upostgres", "-cSELECT pg_sleep(300)")
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)'"
    container.wait_while_running(lambda: sql(container, busy) == "1", "the session")
    code, seconds = container.stop()
    assert (code, seconds < 8) == (0, True)
    assert "database system is shut down" in container.logs().splitlines()[-1]


def test_server_flags_as_arguments(stack_like: Container) -> None:
    assert sql(stack_like, "SHOW max_connections; SHOW listen_addresses; SHOW jit").split() == [
        "37",
        "*",
        "off",
    ]


def test_a_leading_flag_means_the_server(yard: Yard, database_image: Image, cluster: str) -> None:
    container = yard.start(database_image.reference, "-c", "work_mem=5MB", options=[on(cluster)])
    ready(container)
    assert sql(container, "SHOW work_mem") == "5MB"


@pytest.mark.parametrize(
    ("command", "code", "out"),
    [
        (["psql", "--version"], 0, "psql (PostgreSQL) 17."),
        (["pg_dump", "--version"], 0, "pg_dump (PostgreSQL) 17."),
        (["postgres", "--version"], 0, "postgres (PostgreSQL) 17."),
        (["--help"], 0, "postgres is the PostgreSQL server."),
        (["id", "-u"], 0, "0\n"),
        (["date", "+%Z"], 0, "UTC\n"),
        (["sh", "-c", "echo 'a  b' \"$1\"; exit 7", "sh", "c  d"], 7, "a  b c  d\n"),
    ],
)
def test_any_other_command_runs_unchanged(
    yard: Yard, database_image: Image, command: Sequence[str], code: int, out: str
) -> None:
    result = yard.run(database_image.reference, *command)
    assert (result.code, result.err) == (code, "")
    assert result.out.startswith(out)


# --- what the image holds ---


def test_programs_and_extensions_work(stack_like: Container) -> None:
    for extension in ("pgcrypto", "pg_stat_statements", "pg_trgm", "uuid-ossp", "btree_gin"):
        sql(stack_like, f'CREATE EXTENSION "{extension}"')
    assert sql(stack_like, "SELECT encode(digest('', 'md5'), 'hex')").startswith("d41d8cd9")
    assert sql(stack_like, "SELECT count(*) > 0 FROM pg_stat_statements") == "t"
    assert sql(stack_like, "SELECT similarity('word', 'word')") == "1"
    assert sql(stack_like, "SELECT length(uuid_generate_v4()::text)") == "36"
    assert sql(stack_like, "DO $$ BEGIN ASSERT true; END $$; SELECT 'plpgsql'") == "plpgsql"
    dump = stack_like.output_of("pg_dump", "--username=postgres", "--schema-only")
    assert "CREATE EXTENSION IF NOT EXISTS pg_trgm" in dump
    stack_like.output_of("pg_basebackup", "-Upostgres", "-D/dev/shm/copy", "--checkpoint=fast")
    stack_like.output_of("pg_verifybackup", "/dev/shm/copy")


PGBACKREST = """
[global]
repo1-path=/tmp/repository
log-level-file=off
[stackyard]
pg1-path=/var/lib/postgresql/data
"""


def test_segments_are_archived_once_backups_are_of_this_cluster(
    yard: Yard, database_image: Image, tmp_path: Path
) -> None:
    """The archive command succeeds without keeping anything until then."""
    tmp_path.chmod(0o755)
    settings = tmp_path / "settings"
    settings.mkdir(mode=0o755)
    container = yard.start(
        database_image.reference,
        "postgres", "--archive_mode=on", "--archive_command=pgbackrest-archive %p",
        options=[*LOCKED_DOWN, on(yard.volume()), "--tmpfs=/tmp:uid=999,mode=0700",
                 f"--volume={settings}:/etc/pgbackrest:ro"],
        env=PASSWORD,
    )  # fmt: skip
    ready(container)

    def archived() -> int:
        """Switch to another segment; return how many the repository has afterwards."""
        sql(container, "CREATE TABLE IF NOT EXISTS t (); DROP TABLE t")
        name = sql(container, "SELECT pg_walfile_name(pg_switch_wal())")
        container.wait_while_running(
            lambda: sql(container, "SELECT last_archived_wal FROM pg_stat_archiver") >= name,
            "the segment's end",
        )
        found = container.execute("find", "/tmp/repository", "-name", "0*-*").out
        return len(found.split())

    assert archived() == 0
    (settings / "pgbackrest.conf").write_text(PGBACKREST, encoding="utf-8")
    container.output_of("pgbackrest", "--stanza=stackyard", "stanza-create")
    assert archived() == 0
    identifier = sql(container, "SELECT system_identifier FROM pg_control_system()")
    container.output_of("sh", "-c", "echo 1 >/tmp/repository/archive-of")
    assert archived() == 0
    container.output_of("sh", "-c", f"echo {identifier} >/tmp/repository/archive-of")
    assert archived() == 1
    container.output_of("pgbackrest", "--stanza=stackyard", "check")


def test_jit_asked_for_is_absent_rather_than_an_error(plain: Container) -> None:
    query = "SELECT pg_jit_available(), sum(x) FROM generate_series(1, 10) x"
    assert sql(plain, f"SET jit = on; SET jit_above_cost = 0; {query}") == "f|55"


def test_text_sorts_as_in_the_official_image(plain: Container) -> None:
    query = "SELECT string_agg(x, ' ' ORDER BY x) FROM (VALUES ('b'), ('A'), ('a'), ('B')) v(x)"
    assert sql(plain, query) == "a A b B"
    assert sql(plain, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == (
        "en_US.utf8"
    )


def test_time_zone_is_utc(plain: Container) -> None:
    assert sql(plain, "SHOW timezone") == "Etc/UTC"


def test_ports_volumes_and_signal_are_declared(database_image: Image) -> None:
    config = database_image.config()
    assert list(config["ExposedPorts"]) == ["5432/tcp"]
    assert list(config["Volumes"]) == [DATA]
    assert config["StopSignal"] == "SIGINT"
    assert config["Cmd"] == ["postgres"]
    assert f"PGDATA={DATA}" in config["Env"]


def test_nobody_has_a_password_and_999_is_postgres(plain: Container) -> None:
    accounts = plain.output_of("cat", "/etc/passwd").splitlines()
    assert {line.split(":")[1] for line in accounts} == {"x"}
    shadow = plain.execute("cat", "/etc/shadow", user="0").out.split()
    assert {line.split(":")[1] for line in shadow} <= {"*", "!", "!*"}
    assert plain.output_of("id", "postgres").startswith("uid=999(postgres) gid=999(postgres)")


def test_nothing_is_left_over_from_the_build(
    database_image: Image, leftovers: Callable[[Image], list[str]]
) -> None:
    assert leftovers(database_image) == []


def test_apt_still_finds_every_dependency_met(plain: Container) -> None:
    assert plain.execute("apt-get", "check", user="0").code == 0


def test_it_is_small(database_image: Image) -> None:
    assert database_image.bytes_on_top_of_base() <= 100_000_000
