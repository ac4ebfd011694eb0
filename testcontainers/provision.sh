#!/usr/bin/env bash
# Brings up what real brokers need: a Docker engine, and an image for each broker named (rabbitmq, rabbitmq-old,
# kafka; all three when none is). Prints BROKER=IMAGE lines; progress, and in the end what went wrong, go to stderr.
# An image is the one that its setting (MQKIT_RABBITMQ_IMAGE, MQKIT_RABBITMQ_OLD_IMAGE, MQKIT_KAFKA_IMAGE) names, else
# the official one, else ours, built here: from Debian's packages and Kafka's jars, where no image registry answers.
# What is there already is left as it is. Root is needed only to install or start an engine, and to build.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ "$(id -u)" = 0 ]; then state=/var/tmp/mqkit-docker; else state=${XDG_CACHE_HOME:-$HOME/.cache}/mqkit-docker; fi
state=${MQKIT_DOCKER_STATE:-$state}

declare -A setting=(
  [rabbitmq]=${MQKIT_RABBITMQ_IMAGE:-} [rabbitmq-old]=${MQKIT_RABBITMQ_OLD_IMAGE:-} [kafka]=${MQKIT_KAFKA_IMAGE:-})
declare -A variable=(
  [rabbitmq]=MQKIT_RABBITMQ_IMAGE [rabbitmq-old]=MQKIT_RABBITMQ_OLD_IMAGE [kafka]=MQKIT_KAFKA_IMAGE)
declare -A official=(
  [rabbitmq]=rabbitmq:4.3-management [rabbitmq-old]=rabbitmq:4.0-management [kafka]=apache/kafka:4.3.1)
declare -A ours=([rabbitmq]=mqkit/rabbitmq:4.3 [rabbitmq-old]=mqkit/rabbitmq:4.0 [kafka]=mqkit/kafka:4.3)
declare -A suite=([rabbitmq]=forky [rabbitmq-old]=trixie [kafka]=forky) # the Debian that has the version wanted

say() { printf '%s  %s\n' "$(date +%T)" "$*" >&2; }
fail() { say "$*"; exit 1; }

install() { # PACKAGE...
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    fail "$* must be installed, which takes root on Debian: run this once as root, or install it yourself"
  say "installing $* from Debian"
  {
    apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 \
        install -y -qq --no-install-recommends "$@"
  } >"$state/apt.log" 2>&1 </dev/null 9>&- || { tail -n 5 "$state/apt.log" >&2; fail "apt could not install $*: see $state/apt.log"; }
}

engine() { # an answering Docker engine
  docker info >/dev/null 2>&1 && return
  if [ -n "${DOCKER_HOST:-}" ]; then fail "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST: start it, or unset DOCKER_HOST"; fi
  if [ "$(id -u)" != 0 ]; then
    fail "no Docker engine answers this user, and only root may start one: start Docker, join the docker group, or run testcontainers/provision.sh once as root"
  fi
  if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    command -v apt-cache >/dev/null || fail "no Docker engine is installed, and this is not Debian: install Docker"
    apt-get update -qq >/dev/null 2>&1 || true
    local packages=(docker.io iptables ca-certificates)
    if apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi # since Debian 13 the client is apart
    install "${packages[@]}"
    docker info >/dev/null 2>&1 && return # where there is systemd, the package started it
  fi
  local attempt
  for attempt in 1 2; do # what a killed engine leaves can end the first start, and is gone by the second
    say "starting the Docker engine"
    clear_killed_engine
    if start_engine; then return; fi
  done
  tail -n 5 "$state/engine.log" >&2
  fail "the Docker engine did not start: see $state/engine.log"
}

clear_killed_engine() { # its pid file, and the containerd that outlived it: the next engine refuses to start beside them
  rm -f "$state/pid"
  local file=$state/exec/containerd/containerd.pid process
  process=$(cat "$file" 2>/dev/null) || return 0
  if grep -qF "$state/exec/containerd" "/proc/$process/cmdline" 2>/dev/null; then
    kill "$process" 2>/dev/null || true
    local deadline=$((SECONDS + 10))
    while kill -0 "$process" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
  fi
  rm -f "$file"
}

start_engine() { # whether it answers
  # 9 is the lock: an engine that inherited it would hold it for ever
  setsid dockerd --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/pid" \
    -H unix:///var/run/docker.sock >"$state/engine.log" 2>&1 </dev/null 9>&- &
  local process=$! deadline=$((SECONDS + 60))
  until docker info >/dev/null 2>&1; do
    if ! kill -0 "$process" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then return 1; fi
    sleep 0.2
  done
}

registry() { # asked once a day, with the smallest image there is: to wait for each image in turn would take minutes
  if [ -z "$(find "$state/registry" -mmin -1440 2>/dev/null)" ]; then
    local answer=no
    if timeout 15 docker pull -q hello-world >/dev/null 2>&1; then answer=yes; fi
    echo "$answer" >"$state/registry"
    say "an image registry answers: $answer"
  fi
  [ "$(<"$state/registry")" = yes ]
}

base() { # SUITE: a minimal Debian, from the mirror that this machine's own apt uses
  docker image inspect "mqkit/debian:$1" >/dev/null 2>&1 && return
  [ "$(id -u)" = 0 ] && [ "$(. /etc/os-release && echo "$ID")" = debian ] ||
    fail "no image registry answers, and only root on Debian can build the images here: set ${variable[$2]} to an image that you have"
  command -v debootstrap >/dev/null || install debootstrap
  local mirror script=/usr/share/debootstrap/scripts/$1 root
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Identifier: Packages' | awk '$2 == "Debian" {print $1; exit}')
  [ -n "$mirror" ] || mirror=$(awk '/^URIs:/ {print $2; exit} /^deb / {sub(/\[[^]]*\] */, ""); print $2; exit}' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null || true)
  [ -n "$mirror" ] || fail "apt names no Debian mirror on this machine: add one to /etc/apt/sources.list"
  [ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # a suite that is newer than the tool
  root=$(mktemp -d "$state/root.XXXXXX")
  say "making a minimal Debian $1"
  debootstrap --variant=minbase --include=ca-certificates "$1" "$root" "$mirror" "$script" >"$state/debootstrap-$1.log" 2>&1 </dev/null ||
    { rm -rf "$root"; tail -n 5 "$state/debootstrap-$1.log" >&2; fail "debootstrap failed: see $state/debootstrap-$1.log"; }
  tar -C "$root" --exclude='./var/cache/apt/archives/*.deb' --exclude='./var/lib/apt/lists/*' -c . | docker import - "mqkit/debian:$1" >/dev/null
  rm -rf "$root"
}

jars() { # Kafka is not in Debian: its jars are put beside its Dockerfile, in a copy of that folder
  command -v mvn >/dev/null || install maven
  mkdir -p "$state/kafka"
  cp "$here"/kafka/* "$state/kafka/"
  if [ -e "$state/kafka/libs/.complete" ] && cmp -s "$here/kafka/pom.xml" "$state/kafka/libs/.complete"; then return; fi
  rm -rf "$state/kafka/libs"
  say "fetching Kafka's jars"
  mvn -q -B -Dstyle.color=never -f "$state/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$state/kafka/libs" >"$state/maven.log" 2>&1 </dev/null ||
    { tail -n 5 "$state/maven.log" >&2; fail "Kafka's jars could not be fetched: see $state/maven.log"; }
  cp "$here/kafka/pom.xml" "$state/kafka/libs/.complete"
}

build() { # BROKER
  local context=$here/rabbitmq log=$state/build-$1.log
  base "${suite[$1]}" "$1"
  if [ "$1" = kafka ]; then jars; context=$state/kafka; fi
  say "building ${ours[$1]}"
  # the legacy builder: Debian's engine comes without the other one; the host's network and proxies, where it has any
  DOCKER_BUILDKIT=0 docker build --network host --build-arg http_proxy --build-arg https_proxy \
    --build-arg "BASE=mqkit/debian:${suite[$1]}" -t "${ours[$1]}" "$context" >"$log" 2>&1 </dev/null ||
    { tail -n 5 "$log" >&2; fail "${ours[$1]} could not be built: see $log"; }
}

find_image() { # BROKER: prints the image that is here for it, if one is
  local image
  for image in "${setting[$1]:-${official[$1]}}" "${setting[$1]:-${ours[$1]}}"; do
    if [[ $'\n'$images$'\n' == *$'\n'"$image"$'\n'* ]]; then echo "$image"; return; fi
  done
  if [ -n "${setting[$1]}" ] && docker image inspect "${setting[$1]}" >/dev/null 2>&1; then echo "${setting[$1]}"; fi
}

get_image() { # BROKER
  local wanted=${setting[$1]:-${official[$1]}}
  if [ "$wanted" != "${ours[$1]}" ] && { [ -n "${setting[$1]}" ] || registry; }; then
    say "pulling $wanted"
    if docker pull -q "$wanted" >/dev/null 2>"$state/pull.log"; then return; fi
    if [ -n "${setting[$1]}" ]; then fail "$wanted, which ${variable[$1]} names, is not here and could not be pulled: $(<"$state/pull.log")"; fi
    say "$wanted could not be pulled: $(tail -n 1 "$state/pull.log")"
  fi
  build "$1"
}

list_images() { docker images --format '{{.Repository}}:{{.Tag}}' 2>/dev/null; }

print_images() { # BROKER...: fails when one is missing
  local broker image lines=()
  images=$(list_images) || return 1
  for broker; do
    image=$(find_image "$broker")
    [ -n "$image" ] || return 1
    lines+=("$broker=$image")
  done
  printf '%s\n' "${lines[@]}"
}

brokers=("$@")
[ $# -gt 0 ] || brokers=(rabbitmq rabbitmq-old kafka)
for broker in "${brokers[@]}"; do
  [ -n "${ours[$broker]:-}" ] || fail "no broker is called $broker: they are ${!ours[*]}"
done
if print_images "${brokers[@]}"; then exit; fi

mkdir -p "$state"
exec 9>"$state/lock"
flock -n 9 || { say "another run is provisioning: waiting for it"; flock 9; }
engine
images=$(list_images)
for broker in "${brokers[@]}"; do
  if [ -z "$(find_image "$broker")" ]; then get_image "$broker"; fi
done
print_images "${brokers[@]}"
say "the engine and the images are ready"
