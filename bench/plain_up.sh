#!/bin/bash
# `make up` without Ansible: what a person would write for one Debian 13 machine, run as root.
# The bench measures it as the yardstick for what Ansible costs.
#
#   plain_up.sh FILES PROJECT
#     FILES    the checkout's image build contexts
#     PROJECT  a rendered project: daemon.json, docker-compose*.yml, .env, config/, and
#              cache_users.in, the cache's users with @PASSWORD@ in the password's place
set -euo pipefail

files=$(realpath "$1")
project=$(realpath "$2")
stack=/opt/stackyard
export DEBIAN_FRONTEND=noninteractive

# --- Engine. Its configuration first, so that the packages' first start has it already.
install -D -m 0644 "$project/daemon.json" /etc/docker/daemon.json
apt-get update -q
apt-get install -q -y --no-install-recommends \
    docker.io docker-cli docker-compose docker-buildx \
    mmdebstrap debian-archive-keyring openssl
systemctl enable -q --now docker

# --- Images.
base=stackyard/base:plain
# shellcheck disable=SC2016 # the placeholders are apt's
archive=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) main' \
    'Identifier: Packages' 'Component: main' | sort -u)
mmdebstrap --quiet --variant=apt --include=passwd,busybox \
    --dpkgopt="$files/base/dpkg.cfg" \
    --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' \
    --aptopt='Dir::Cache::pkgcache ""' \
    --aptopt='Dir::Cache::srcpkgcache ""' \
    --customize-hook="upload $files/base/apt.conf /etc/apt/apt.conf.d/90image" \
    trixie - "$archive" | docker import - "$base"

for service in gateway frontend api database cache; do
    image=$(sed -n "s|^ *image: *\([^ ]*/$service:[^ ]*\)$|\1|p" "$project/docker-compose.yml")
    docker buildx build --progress=plain --build-arg "BASE=$base" --tag "$image" "$files/$service"
done

# --- Project.
install -d -m 0750 "$stack"
cp -R "$project"/docker-compose*.yml "$project/.env" "$project/config" "$stack"

# --- Secrets. printf is the shell's own: no value becomes an argument of a process.
secret() { # NAME UID, the value on standard input
    install -m 0400 -o "$2" -g "$2" /dev/stdin "$stack/secrets/$1"
}
password() { openssl rand -hex 32; }

install -d -m 0700 "$stack/secrets"
superuser=$(password)
database=$(password)
cache=$(password)
users=$(<"$project/cache_users.in")
printf '%s\n' "$superuser" | secret database_superuser_password 999
printf '%s\n' "$database" | secret database_api_password 999
printf '%s\n' "$database" | secret api_database_password 992
printf '%s\n' "$cache" | secret api_cache_password 992
printf '%s\n' "${users//@PASSWORD@/$cache}" | secret cache_users 999
openssl req -x509 -nodes -days 3650 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 \
    -subj "/CN=$(hostname)" -addext "subjectAltName=DNS:$(hostname),DNS:localhost,IP:127.0.0.1" \
    -keyout - -out - 2>/dev/null | secret gateway_certificate 990

# --- Up.
cd "$stack"
docker compose --progress plain up --detach --wait
docker compose ps
