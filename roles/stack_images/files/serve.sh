#!/bin/sh
# serve.sh FOLDER CONFIG: a registry with this configuration, for as long as the standard input lasts.
#
# So it ends with whoever started it, however that ends. FOLDER is made, and is gone then.
set -eu
umask 077
mkdir "$1"
printf '%s' "$2" >"$1/config.yml"
setpriv --pdeathsig KILL docker-registry serve "$1/config.yml" >/dev/null &
trap 'kill $!; wait; rm -rf "$1"' EXIT
cat >/dev/null
