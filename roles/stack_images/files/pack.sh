#!/bin/bash
# pack.sh PREFIX CONTENT ADDRESSEE IMAGE...: packs the images into PREFIX-CONTENT-ADDRESSEE.tar.gz.
#
# Machines that lack the same images share an archive: each has a link of its own to it, so that
# removing one takes it from nobody else, and what a killed run left is known by its addressee.
set -euo pipefail
umask 022
prefix=$1 content=$2 addressee=$3
shift 3
archive=$prefix-$content-$addressee.tar.gz

# One at a time: whoever waited finds an archive to share.
mkdir -p "${prefix%/*}"
exec {lock}<"${prefix%/*}"
flock "$lock"
rm -f "$prefix"-*-"$addressee".tar.gz{,.part}
for other in "$prefix-$content"-*.tar.gz; do
  if ln "$other" "$archive" 2>/dev/null; then exit; fi
done
docker save "$@" | gzip -1 >"$archive.part"
mv "$archive.part" "$archive"
