#!/bin/bash
# Becomes redis-server with what a container needs, or runs any other command as it is.
set -eo pipefail

# Does this file, or one that it includes, say anything about protected mode?
speaks_of_protected_mode() {
    local file included
    # Redis expands patterns in include, so they stay unquoted here too.
    for file in $1; do
        [[ -r $file && ! -d $file ]] || continue
        ! grep -qiE '^[[:space:]]*"?protected-mode["[:space:]]' "$file" || return 0
        while read -r included; do
            ! speaks_of_protected_mode "$included" || return 0
        done < <(sed -nE "s/^[[:space:]]*include[[:space:]]+[\"']?([^\"']+[^\"'[:space:]])[\"']?[[:space:]]*\$/\1/Ip" "$file")
    done
    return 1
}

serve() {
    # Files carry what the cache holds: nobody else's to read.
    umask 0077
    # A container's process must stay in the foreground, whatever a file says.
    local config=() defaults=(--daemonize no) from_stdin=
    if [[ -n $1 && $1 != -* ]]; then
        config=("$1")
        shift
    fi
    if [[ $1 == - || ${*: -1} == - ]]; then
        from_stdin=yes
    fi

    # Behind protected mode nobody outside the container gets an answer. The
    # default stands where any word of the caller's on it still wins: flags
    # override the standard input, which overrides a file.
    if [[ ${#config[@]} -gt 0 ]] && speaks_of_protected_mode "${config[0]}"; then
        :
    elif [[ -n $from_stdin ]]; then
        exec < <(
            echo 'protected-mode no'
            exec cat
        )
    else
        defaults+=(--protected-mode no)
    fi

    if [[ $1 == - ]]; then
        # Redis looks for it as the first argument or the last.
        shift
        exec redis-server "${config[@]}" "${defaults[@]}" "$@" -
    fi
    exec redis-server "${config[@]}" "${defaults[@]}" "$@"
}

if [[ $1 == -* || $1 == *.conf ]]; then
    set -- redis-server "$@"
fi
if [[ $1 != redis-server ]]; then
    exec "$@"
fi
# These answer and end, and count only as the first argument.
case $2 in
    -v | --version | -h | --help | --test-memory | --check-system) exec "$@" ;;
esac
if ((EUID == 0)); then
    find /data ! -user redis -exec chown --no-dereference redis:redis {} +
    export HOME=/data
    exec setpriv --reuid=redis --regid=redis --init-groups --inh-caps=-all -- "$0" "$@"
fi
serve "${@:2}"
