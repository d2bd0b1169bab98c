#!/bin/bash
# Prepares the data directory on the first start, then becomes the server.
# Variables and paths are those of the official postgres image. Two things it
# does not have: a first initialisation that was cut short starts over, and a
# data directory that another server uses is refused.
set -eo pipefail

script_dir=/docker-entrypoint-initdb.d
socket_dir=/var/run/postgresql
settings=(POSTGRES_USER POSTGRES_PASSWORD POSTGRES_DB POSTGRES_INITDB_ARGS POSTGRES_HOST_AUTH_METHOD)

say() { printf 'database: %s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

# What the data directory holds: nothing, a cluster, a half-made one, or others' files.
contents() {
    local entries
    # Sorted in C, so that the message below reads the same everywhere.
    entries=$(find "$PGDATA" -mindepth 1 -maxdepth 1 -printf '%f\n' | LC_ALL=C sort) ||
        die "PGDATA=$PGDATA cannot be read as uid $(id -u): chown it to 999:999"
    if [[ -d $_marker ]]; then
        echo half-made
    elif [[ -s $PGDATA/PG_VERSION ]]; then
        echo cluster
    elif [[ -z $entries ]]; then
        echo nothing
    elif [[ $entries == lost+found ]]; then
        die "PGDATA=$PGDATA is a file system's top directory (lost+found): set PGDATA to a directory below it, such as $PGDATA/pgdata"
    else
        die "PGDATA=$PGDATA has files but no PG_VERSION (${entries%%$'\n'*} ...): empty it, or mount the right volume"
    fi
}

refuse_two_sources() {
    local name file
    for name in "${settings[@]}"; do
        file=${name}_FILE
        [[ -z ${!name} || -z ${!file} ]] || die "$name and $file are both set: set one of them"
    done
}

read_settings() {
    local name file
    for name in "${settings[@]}"; do
        file=${name}_FILE
        if [[ -n ${!file} ]]; then
            [[ -r ${!file} && ! -d ${!file} ]] ||
                die "$file=${!file} is not a file that uid $(id -u) can read: correct the path or the file's owner"
            printf -v "$name" %s "$(<"${!file}")"
            # Only now: an empty file must still be named in the message.
            [[ $name != POSTGRES_PASSWORD || -n ${!name} ]] || die "$file=${!file} is empty: put the password into it"
        fi
        unset "$file"
    done
    export POSTGRES_USER=${POSTGRES_USER:-postgres}
    export POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
    export POSTGRES_PASSWORD POSTGRES_INITDB_ARGS POSTGRES_HOST_AUTH_METHOD
}

check_settings() {
    if [[ $POSTGRES_HOST_AUTH_METHOD == trust ]]; then
        say "POSTGRES_HOST_AUTH_METHOD=trust lets every host in without a password: set POSTGRES_PASSWORD instead, unless that is meant"
    elif [[ -z $POSTGRES_PASSWORD ]]; then
        die "no password for the superuser: set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE (or POSTGRES_HOST_AUTH_METHOD=trust to need none)"
    fi
    # initdb reads one line, and would set a password that nobody knows.
    [[ $POSTGRES_PASSWORD != *$'\n'* ]] || die "POSTGRES_PASSWORD has more than one line: set it to one line"
    # PostgreSQL takes no such name for an extension's owner, and initdb would
    # print the statement with the password when it fails.
    [[ $POSTGRES_USER != *[\"\$\'\\]* ]] ||
        die "POSTGRES_USER=$POSTGRES_USER has one of \" \$ ' \\, which PostgreSQL refuses for a superuser: choose a name without"
    [[ -z $POSTGRES_INITDB_WALDIR ]] ||
        die "POSTGRES_INITDB_WALDIR=$POSTGRES_INITDB_WALDIR is not supported: mount a volume for the whole of PGDATA and unset it"
}

# PostgreSQL's own check goes by process number, which means nothing in another
# container. The descriptor passes to the server and all its children, so the
# lock lasts exactly as long as any of them.
lock_data_directory() {
    local status=0
    { exec {lock}<"$PGDATA"; } 2>/dev/null || die "PGDATA=$PGDATA cannot be opened as uid $(id -u): chown it to 999:999"
    flock --nonblock --conflict-exit-code 75 "$lock" || status=$?
    ((status != 75)) || die "PGDATA=$PGDATA is in use by another server: stop that one first, or use another volume"
    ((status == 0)) || die "PGDATA=$PGDATA cannot be locked: use a local volume"
}

run_as_postgres() {
    local held
    mkdir -p "$PGDATA"
    lock_data_directory
    find "$PGDATA" ! -user postgres -exec chown --no-dereference postgres:postgres {} +
    # Docker gives a tmpfs here to root.
    [[ ! -w $socket_dir ]] || { chown postgres:postgres "$socket_dir" && chmod 3777 "$socket_dir"; }
    # A secret may be readable by root alone.
    held=$(contents)
    [[ $held == cluster ]] || read_settings
    exec {lock}<&-
    export HOME=/var/lib/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=-all -- "$0" "$@"
}

# psql on the temporary server. Init scripts written for the official image may
# call this too, hence the name.
docker_process_sql() {
    # The database goes by variable: as an argument, a name with = would be taken for a connection string.
    PGDATABASE=${PGDATABASE-$POSTGRES_DB} psql --no-psqlrc --no-password --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" "$@"
}

make_cluster() {
    local args=() auth_host=scram-sha-256 parsed password=
    # xargs splits by a shell's quoting rules and runs nothing that it finds.
    parsed=$(printf '%s' "$POSTGRES_INITDB_ARGS" | xargs -r -n 1 printf '%s\n' 2>/dev/null) ||
        die "POSTGRES_INITDB_ARGS=$POSTGRES_INITDB_ARGS cannot be split into arguments: close its quotes"
    [[ -z $parsed ]] || mapfile -t args <<<"$parsed"
    [[ $POSTGRES_HOST_AUTH_METHOD != trust ]] || auth_host=trust

    # Neither an argument nor a file: the password goes through a pipe.
    [[ -z $POSTGRES_PASSWORD ]] || exec {password}< <(printf '%s\n' "$POSTGRES_PASSWORD")
    # The caller's arguments come last and win.
    initdb --no-instructions --pgdata="$_marker/cluster" --username="$POSTGRES_USER" \
        --auth-local=trust --auth-host="$auth_host" \
        ${password:+--pwfile="/dev/fd/$password"} "${args[@]}"
    [[ -z $password ]] || exec {password}<&-
    chmod --reference="$_marker/cluster" "$PGDATA" # --allow-group-access
    find "$_marker/cluster" -mindepth 1 -maxdepth 1 -exec mv -t "$PGDATA" {} +
    rmdir "$_marker/cluster"
}

allow_hosts() {
    local method=$POSTGRES_HOST_AUTH_METHOD
    [[ -n $method ]] || method=$(postgres -C password_encryption "$@")
    printf '\nhost all all all %s\n' "$method" >>"$PGDATA/pg_hba.conf"
}

# On the socket only, so that no health check over TCP passes too early.
start_temporary_server() {
    export PGHOST=$socket_dir PGPORT=${PGPORT:-5432}
    unset PGHOSTADDR PGUSER PGDATABASE
    # For --auth-local=scram-sha-256 and the like.
    [[ -z $POSTGRES_PASSWORD ]] || export PGPASSWORD=$POSTGRES_PASSWORD
    # Its own settings come last and win.
    postgres "$@" -c listen_addresses= -c unix_socket_directories="$socket_dir" -p "$PGPORT" &
    _server=$!
    until pg_isready --quiet; do
        kill -0 "$_server" 2>/dev/null || die "the temporary server ended early: see its messages above"
        sleep 0.1
    done
}

create_database() {
    PGDATABASE=postgres docker_process_sql --quiet --set db="$POSTGRES_DB" <<'SQL'
SELECT format('CREATE DATABASE %I', :'db')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'db') \gexec
SQL
}

run_script() {
    say "running $1"
    case $1 in
        *.sh)
            if [[ -x $1 ]]; then
                "$1"
            else
                # shellcheck source=/dev/null
                . "$1"
                set -eo pipefail # whatever the script has made of it
            fi
            ;;
        *.sql) docker_process_sql --file "$1" ;;
        *.sql.gz) gunzip --stdout "$1" | docker_process_sql ;;
        *.sql.xz | *.sql.zst) die "$1 has a compression that is not supported: use .sql.gz" ;;
        *) say "ignoring $1" ;;
    esac
}

# Runs in a process of its own: init scripts are sourced here, and may do
# anything to it. Names with _ are those that they must not hit by chance.
initialise() {
    set +m
    local _script
    _step="initdb"
    trap 'say "first initialisation failed at $_step; the next start begins it again"; [[ -z $_server ]] || kill -QUIT "$_server" 2>/dev/null || :' EXIT
    make_cluster
    _step="writing pg_hba.conf"
    allow_hosts "$@"
    _step="starting the temporary server"
    start_temporary_server "$@"
    _step="creating database $POSTGRES_DB"
    create_database
    [[ -r $script_dir && -x $script_dir ]] || die "$script_dir cannot be read as uid $(id -u): make it readable"
    for _script in "$script_dir"/*; do
        [[ -e $_script || -L $_script ]] || continue
        _step=$_script
        run_script "$_script"
    done
    _step="stopping the temporary server"
    kill -INT "$_server"
    wait "$_server"
    _server=
    _step="writing everything to disk"
    sync --file-system "$PGDATA"
    # The last step and an atomic one: from here on the cluster counts as complete.
    rmdir "$_marker"
    sync "$PGDATA"
    trap - EXIT
}

# Cut short by `docker stop`: nothing worth waiting for, the next start begins again.
give_up() {
    say "stopped during the first initialisation; the next start begins it again"
    kill -TERM -- "-$job" 2>/dev/null || :
    # The server's sessions are in process groups of their own.
    [[ ! -s $PGDATA/postmaster.pid ]] || kill -INT "$(head -n 1 "$PGDATA/postmaster.pid")" 2>/dev/null || :
    for _ in {1..50}; do
        kill -0 -- "-$job" 2>/dev/null || break
        sleep 0.1
    done
    exit 0
}

initialise_once() {
    local status=0
    if [[ $1 == half-made ]]; then
        say "PGDATA=$PGDATA holds a first initialisation that was cut short: starting it over"
        # Never reachable over TCP, so nobody's data. The marker stays until all else is gone.
        find "$PGDATA" -mindepth 1 -maxdepth 1 ! -name "${_marker##*/}" -exec rm -rf {} +
        find "$_marker" -mindepth 1 -delete
    else
        mkdir "$_marker" || die "PGDATA=$PGDATA cannot be written as uid $(id -u): chown it to 999:999"
        sync "$PGDATA"
    fi
    # Its own process group, so that a stop reaches whatever a script has started.
    trap give_up INT TERM
    set -m
    initialise "${@:2}" </dev/null &
    job=$!
    set +m
    wait "$job" || status=$?
    trap 'exit 0' INT TERM
    ((status == 0)) || exit "$status"
    # A sourced script that calls exit 0 ends up here.
    [[ ! -d $_marker ]] || die "first initialisation ended before its time: let no script in $script_dir call exit"
    say "PostgreSQL init process complete; ready for start up."
}

main() {
    local held version
    shift
    refuse_two_sources
    [[ $PGDATA == /* ]] || die "PGDATA=$PGDATA is not an absolute path: set it to one"
    export PGDATA=${PGDATA%/}
    _marker=$PGDATA/.initialising
    ((EUID != 0)) || run_as_postgres postgres "$@"
    id -un >/dev/null 2>&1 || die "uid $(id -u) has no entry in /etc/passwd: start as root or as 999:999"

    mkdir -p "$PGDATA" 2>/dev/null || die "PGDATA=$PGDATA cannot be made as uid $(id -u): mount a volume there that belongs to 999:999"
    lock_data_directory
    if [[ ! -w $socket_dir ]]; then
        socket_dir=/dev/shm
        say "/var/run/postgresql cannot be written, so the socket is in $socket_dir (psql --host $socket_dir): mount a tmpfs on /var/run/postgresql"
        # First, so that the caller's own choice wins.
        set -- -c unix_socket_directories="$socket_dir" "$@"
    fi
    # PostgreSQL takes 0700 and 0750; a fresh volume or tmpfs has neither.
    [[ $(stat -c %a "$PGDATA") == 7[05]0 ]] || chmod 0700 "$PGDATA" ||
        die "PGDATA=$PGDATA does not belong to uid $(id -u): chown it to 999:999"

    held=$(contents)
    if [[ $held == cluster ]]; then
        version=$(<"$PGDATA/PG_VERSION")
        [[ $version == "$PG_MAJOR" ]] ||
            die "PGDATA=$PGDATA was made by PostgreSQL $version and this is $PG_MAJOR: start version $version on it, or dump there and restore here"
    else
        read_settings
        check_settings
        initialise_once "$held" "$@"
    fi
    # The server and what it runs have no use for it.
    unset POSTGRES_PASSWORD PGPASSWORD
    exec postgres "$@"
}

[[ $1 != -* ]] || set -- postgres "$@"
if [[ $1 == postgres ]]; then
    for argument; do
        case $argument in
            -\? | --help | -V | --version | --describe-config) exec "$@" ;;
        esac
    done
    # As process 1 a shell ignores signals that it has no trap for.
    trap 'exit 0' INT TERM
    main "$@"
fi
exec "$@"
