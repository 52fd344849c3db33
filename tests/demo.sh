#!/usr/bin/env bash
# A tour: real containers on a real systemd host, in the lab, so that it is the same on every machine.
set -euo pipefail
cd "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")"
export LAB=${LAB:-demo} LAB_PROFILE=${LAB_PROFILE:-dev} LAB_FEATURES=

bold=$(tput bold 2>/dev/null || true) dim=$(tput setaf 6 2>/dev/null || true) plain=$(tput sgr0 2>/dev/null || true)
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# Shows a command and runs it inside.
run() {
    printf '%s$ %s%s\n' "$dim" "$*" "$plain"
    tests/lab.sh exec sh -c "$*"
}

trap 'tests/lab.sh down' EXIT
say "Building berth, and booting the lab: a Debian with systemd as pid 1, made of namespaces"
tests/lab.sh up
# Two seconds of idleness instead of thirty: nobody wants to watch that.
tests/lab.sh exec sh -c 'mkdir -p /etc/berth; echo "idle-exit = 2" >/etc/berth/berthd.toml'
run 'systemctl is-system-running; systemctl --version | head -n 1; docker --version'

say "The agent does not run. Its socket waits; the first request starts it"
run 'systemctl is-active berthd.service berth.socket || true'
run "docker version --format 'client {{.Client.Version}}, server {{.Server.Version}}, API {{.Server.APIVersion}}'"
run 'systemctl is-active berthd.service'

say "An image from nothing: Debian's static busybox, as a file tree"
run 'mkdir -p /tmp/tree/bin /tmp/tree/etc /tmp/tree/tmp; cp /bin/busybox /tmp/tree/bin; echo root:x:0:0:root:/:/bin/sh >/tmp/tree/etc/passwd
  for a in $(busybox --list); do [ $a = busybox ] || ln -s busybox /tmp/tree/bin/$a; done'
run "tar -C /tmp/tree -c . | docker import -c 'CMD [\"sh\"]' -c 'ENV PATH=/bin' - busybox:latest; docker images"

say "Containers"
run 'docker run --rm busybox echo "hello from a container"'
run "docker run -d --name web -m 64m --cpus 0.5 busybox sh -c 'mkdir /www; echo served >/www/index.html; exec httpd -f -h /www'"
run "docker run -d --name worker busybox sh -c 'trap \"echo bye; exit 3\" TERM; n=0; while :; do n=\$((n+1)); echo working \$n; sleep 1 & wait \$!; done'"
run 'docker ps'
worker=$(tests/lab.sh exec docker inspect -f '{{slice .Id 0 12}}' worker)
run "docker run --rm --network container:web busybox sh -c 'printf \"GET / HTTP/1.0\\r\\n\\r\\n\" | nc 127.0.0.1 80 | tail -n 1'"

say "For systemd each of them is a scope, with the container's limits as its properties"
run 'systemctl status --no-pager --lines 0 "berth-*.scope"'
run 'systemctl show -p MemoryMax -p CPUQuotaPerSecUSec berth-$(docker inspect -f "{{slice .Id 0 12}}" web).scope'
run 'systemd-cgls --no-pager --xattr=no -u berth.slice'

say "And objects on the bus"
run 'busctl --no-pager tree org.berth.Agent1'
run 'busctl call org.berth.Agent1 /org/berth/Agent1 org.berth.Agent1.Manager ListContainers "a{sv}" 0'

say "Nobody asks anything for two seconds: the agent leaves by itself, the containers stay"
run 'tail --pid=$(systemctl show --value -p MainPID berthd.service) -f /dev/null; systemctl is-active berthd.service || true; systemctl is-active "berth-*.scope"'
say "systemctl stop of a scope is a graceful docker stop, with no agent there"
run "systemctl stop berth-$worker.scope; systemctl is-active berth-$worker.scope || true"
say "The next request brings the agent back; the exit code is the program's own"
run "docker ps -a --format 'table {{.Names}}\t{{.Status}}'"
run 'docker logs --tail 2 worker'

say "Killed, it comes back too, and the web server has not noticed"
run 'kill -9 $(systemctl show --value -p MainPID berthd.service); docker ps'
run "docker run --rm --network container:web busybox sh -c 'printf \"GET / HTTP/1.0\\r\\n\\r\\n\" | nc 127.0.0.1 80 | tail -n 1'"

say "Cleaning up"
run 'docker rm -f web worker; docker ps -aq | wc -l; systemctl list-units --no-legend "berth-*.scope" | wc -l'
