#!/usr/bin/env bash
# The lab: a disposable systemd host made of namespaces, with berth installed as a package would install it.
#
#   tests/lab.sh up            build, stage and boot (fresh every time; does nothing when it is up)
#   tests/lab.sh exec CMD…     run a command inside (LAB_USER=NAME: as that user)
#   tests/lab.sh shell         a root shell inside
#   tests/lab.sh status        what is up
#   tests/lab.sh pid           the host's pid of its pid 1, and its state directory
#   tests/lab.sh down          end it and remove what it left
#   tests/lab.sh root          make (or find) the cached Debian root and print its path
#
# LAB=NAME       which lab (default: default); several can be up at once
# LAB_STAGE=DIR  an installed tree to use instead of building one (make install DESTDIR=DIR)
# LAB_PROFILE    cargo profile of what is built (default: dev); LAB_FEATURES: of berthd (default: failpoints)
# LAB_EXTRA="PKG…"  further Debian packages in the root (bench: docker.io)
#
# Outside of its own state directory the lab leaves one cgroup while it is up, and a cached root.
set -euo pipefail
shopt -s inherit_errexit

self=$(readlink -f "${BASH_SOURCE[0]}")
repo=$(dirname "$(dirname "$self")")
name=${LAB:-default}
[[ $name =~ ^[a-z0-9][a-z0-9-]{0,30}$ ]] || { echo "lab: bad name '$name' (a-z, 0-9, -)" >&2; exit 2; }
state=${BERTH_LAB_DIR:-${CARGO_TARGET_DIR:-$repo/target}/lab}/$name
cache=${BERTH_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/berth}
packages=(systemd systemd-sysv dbus polkitd iproute2 nftables procps busybox-static
    python3 strace libseccomp2 xz-utils zstd bzip2 ca-certificates ${LAB_EXTRA:-})

say() { echo "lab: $*" >&2; }
die() { say "$*"; exit 1; }

# Everything below `up`'s build needs root; the build itself does not and must not run as it.
need_root() {
    [ "$(id -u)" = 0 ] || exec sudo --preserve-env=LAB,LAB_STAGE,LAB_USER,LAB_EXTRA,BERTH_LAB_DIR,BERTH_CACHE_DIR,HOME,PATH,CARGO_TARGET_DIR,XDG_CACHE_HOME "$self" "$@"
}

# The host-side pid of the lab's pid 1, if it is alive and still the process that was recorded.
lab_pid() {
    local pid start
    read -r pid start 2>/dev/null <"$state/pid" || return 1
    [ "$(start_time "$pid")" = "$start" ] && echo "$pid"
}

start_time() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- $stat
    echo "${20}"
}

# The cgroup v2 tree: where the hybrid hosts of build machines and systemd's own hosts have it.
cgroup_base() {
    findmnt -n -o TARGET -t cgroup2 | head -n 1
}

root_tree() {
    local suite id tree
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    id=$({ echo "$suite ${packages[*]}"; declare -f prepare_root; } | sha256sum | cut -c1-12)
    tree=$cache/lab-root-$id
    if [ ! -e "$tree/.complete" ]; then
        say "making the Debian root (once; cached in $cache)"
        mkdir -p "$cache"
        rm -rf "$tree.tmp"
        # The mirrors are the host's own: whatever apt is set up with here.
        local sources list
        sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
            awk '$4 == "Debian" { print "deb", $1, $2, $3 }')
        [ -n "$sources" ] || die "apt knows no Debian mirror: run apt-get update first"
        list=$(IFS=,; echo "${packages[*]}")
        mmdebstrap --quiet --variant=minbase --include="$list" "$suite" "$tree.tmp" - <<<"$sources" >&2
        prepare_root "$tree.tmp"
        touch "$tree.tmp/.complete"
        mv "$tree.tmp" "$tree"
    fi
    echo "$tree"
}

# What differs from a fresh Debian: nothing in it may reach for the kernel's global settings, and two users for
# the tests of who may do what.
prepare_root() {
    local tree=$1 unit
    for unit in systemd-sysctl systemd-modules-load systemd-udevd systemd-udev-trigger systemd-binfmt \
        systemd-remount-fs systemd-timesyncd systemd-logind-varlink getty@ console-getty e2scrub_reap \
        systemd-pcrphase systemd-pcrphase-sysinit docker containerd; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit.service"
    done
    for unit in systemd-udevd-kernel.socket systemd-udevd-control.socket apt-daily.timer apt-daily-upgrade.timer \
        dpkg-db-backup.timer e2scrub_all.timer fstrim.timer getty.target docker.socket; do
        ln -sf /dev/null "$tree/etc/systemd/system/$unit"
    done
    chroot "$tree" useradd -m alice
    chroot "$tree" useradd -m bob
    echo berth-lab >"$tree/etc/hostname"
    printf '127.0.0.1 localhost berth-lab\n' >"$tree/etc/hosts"
    printf 'nameserver 192.0.2.53\n' >"$tree/etc/resolv.conf"
    mkdir -p "$tree/lab" "$tree/var/lib/berth"
    cat >"$tree/etc/systemd/system/lab-ready.service" <<'UNIT'
[Unit]
Description=Tell the host that the lab is up
After=multi-user.target

[Service]
Type=simple
ExecStart=/bin/sh -c 'systemctl is-system-running --wait >/lab/ready'
UNIT
    mkdir -p "$tree/etc/systemd/system/multi-user.target.wants"
    ln -sf ../lab-ready.service "$tree/etc/systemd/system/multi-user.target.wants/lab-ready.service"
}

stage() {
    if [ -n "${LAB_STAGE:-}" ]; then
        [ -x "$LAB_STAGE/usr/bin/berthd" ] || die "LAB_STAGE=$LAB_STAGE holds no usr/bin/berthd"
        return
    fi
    mkdir -p "$state"
    rm -rf "$state/stage"
    make --no-print-directory -C "$repo" install DESTDIR="$state/stage" PREFIX=/usr \
        PROFILE="${LAB_PROFILE:-dev}" FEATURES="${LAB_FEATURES-failpoints}" >&2
    export LAB_STAGE=$state/stage
}

up() {
    lab_pid >/dev/null && return
    stage
    need_root up
    local tree cgroup docker outer line
    tree=$(root_tree)
    clean
    mkdir -p "$state"/{upper,work,root,data,share,dockerdata}
    chmod 0755 "$state" "$state/share"
    mkfifo -m 0600 "$state/share/ready"
    docker=$(command -v docker || true)
    [ -n "$docker" ] || docker=$(docker_from_debian)
    cgroup=$(cgroup_base)
    [ -n "$cgroup" ] || die "no cgroup2 is mounted"
    cgroup=$cgroup/berth-lab-$name
    mkdir -p "$cgroup"
    echo "$cgroup" >"$state/cgroup"

    # The outer process lives exactly as long as the lab: it holds the lock that `down` waits for and the write
    # end of the fifo, so that a lab that dies while booting ends the wait below at once.
    (
        exec 9>"$state/lock"
        flock -n 9 || die "another lab named $name is coming up or going down"
        exec 7>"$state/share/ready"
        echo 0 >"$cgroup/cgroup.procs"
        exec setsid unshare --mount --pid --fork --cgroup --net --uts --ipc --propagation private \
            "$self" __boot "$state" "$tree" "$LAB_STAGE" "$docker"
    ) </dev/null >"$state/console.log" 2>&1 &
    outer=$!
    exec 6<"$state/share/ready"
    if ! read -r -t 90 line <&6; then
        tail -n 20 "$state/console.log" >&2
        down
        die "the lab did not come up"
    fi
    exec 6<&-
    # Out of the lab's own tree again, where a process from outside its pid namespace only confuses systemd.
    { echo "$outer" >"$(cgroup_base)$(sed -n 's/^0:://p' /proc/self/cgroup)/cgroup.procs"; } 2>/dev/null || true
    [ "$line" = running ] || { say "systemd is '$line':"; (inside systemctl --no-pager --failed >&2) || true; }
}

# Runs as the lab's pid 1 to be: new namespaces, the host's tree still in view.
boot() {
    local state=$1 tree=$2 stage=$3 docker=$4 root=$1/root node
    exec 7>&- 9>&-
    read -r node <"/proc/self/stat"
    echo "${node%% *} $(start_time "${node%% *}")" >"$state/pid"

    if ! mount -t overlay overlay -o "lowerdir=$stage:$tree,upperdir=$state/upper,workdir=$state/work" "$root"; then
        # The state directory is itself on an overlay, or on something else that cannot be an upper layer.
        mount -t tmpfs -o mode=755 tmpfs "$state/upper"
        mkdir "$state/upper/"{up,work,data}
        mount -t overlay overlay -o "lowerdir=$stage:$tree,upperdir=$state/upper/up,workdir=$state/upper/work" "$root"
        mount --bind "$state/upper/data" "$state/data"
    fi
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs "$root/run"
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"
    mount -t tmpfs -o nosuid,strictatime,mode=755 tmpfs "$root/dev"
    for node in null zero full random urandom tty; do
        : >"$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
    : >"$root/dev/console"
    mount --bind /dev/null "$root/dev/console"
    mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
    mount -t devpts -o nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
    mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s fd/0 "$root/dev/stdin"
    ln -s fd/1 "$root/dev/stdout"
    ln -s fd/2 "$root/dev/stderr"
    mount --bind "$state/share" "$root/lab"
    # A container's writable layer cannot lie on an overlay: berth's data is a directory of the host's disk.
    mount --bind "$state/data" "$root/var/lib/berth"
    if [ -d "$root/var/lib/docker" ] || [ -d "$root/etc/docker" ]; then
        mkdir -p "$root/var/lib/docker"
        mount --bind "$state/dockerdata" "$root/var/lib/docker"
    fi
    if [ -n "$docker" ]; then
        mkdir -p "$root/usr/local/bin"
        touch "$root/usr/local/bin/docker"
        mount --bind -o ro "$docker" "$root/usr/local/bin/docker"
    fi
    head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$root/etc/machine-id"
    echo >>"$root/etc/machine-id"
    hostname berth-lab
    ip link set lo up

    # As a package's installation does: users, directories, presets.
    chroot "$root" systemd-sysusers
    chroot "$root" usermod -a -G berth bob 2>/dev/null || true
    chroot "$root" systemctl preset berth.socket berth-monitor.socket 2>/dev/null || true

    cd "$root"
    pivot_root . .
    umount -l .
    # systemd makes the root shared on a real host, but not when it finds itself in a container.
    mount --make-rshared /
    exec env -i container=berth-lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --show-status=no --log-target=journal
}

# The docker CLI out of Debian's package, without installing a daemon on this machine.
docker_from_debian() {
    local dir=$cache/docker-cli package
    if [ ! -x "$dir/usr/bin/docker" ]; then
        rm -rf "$dir.tmp"
        mkdir -p "$dir.tmp/deb"
        for package in docker-cli docker.io; do
            (cd "$dir.tmp/deb" && apt-get download -q "$package" >&2) && break
        done
        dpkg-deb -x "$dir.tmp"/deb/*.deb "$dir.tmp"
        [ -x "$dir.tmp/usr/bin/docker" ] || die "no docker CLI on the path, and none in Debian's packages"
        mv "$dir.tmp" "$dir"
    fi
    echo "$dir/usr/bin/docker"
}

inside() {
    local pid
    pid=$(lab_pid) || die "the lab '$name' is not up (tests/lab.sh up)"
    local run=(nsenter --target "$pid" --mount --uts --ipc --net --pid --cgroup --root --wdns=/
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
        TERM="${TERM:-dumb}" LANG=C.UTF-8 DOCKER_HOST=unix:///run/berth/berth.sock)
    # What is started here ends with its starter, also when that is killed.
    if [ -n "${LAB_USER:-}" ] && [ "$LAB_USER" != root ]; then
        run+=(HOME="/home/$LAB_USER" setpriv --pdeathsig KILL --reuid="$LAB_USER" --regid="$LAB_USER" --init-groups)
    else
        run+=(HOME=/root setpriv --pdeathsig KILL)
    fi
    exec "${run[@]}" "$@"
}

down() {
    need_root down
    local pid
    if pid=$(lab_pid); then
        kill -KILL "$pid"
    fi
    [ -e "$state/lock" ] && flock "$state/lock" true
    clean
}

# Removes what a lab left: its cgroup tree (empty once its pid 1 is dead) and its files.
clean() {
    local cgroup
    if read -r cgroup 2>/dev/null <"$state/cgroup" && [ -d "$cgroup" ]; then
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    fi
    rm -rf "$state"/{upper,work,root,data,dockerdata,share,pid,cgroup,lock}
}

status() {
    local pid
    if pid=$(lab_pid); then
        echo "$name: up, pid 1 is $pid, state in $state"
    else
        echo "$name: down"
        return 3
    fi
}

case ${1:-} in
    up) up ;;
    exec) shift; need_root exec "$@"; inside "$@" ;;
    shell) need_root shell; inside bash -l ;;
    status) status ;;
    down) down ;;
    root) need_root root; root_tree ;;
    pid) pid=$(lab_pid) && echo "$pid $state" ;;
    __boot) shift; boot "$@" ;;
    *) sed -n '2,/^set -euo/{/^set/d;s/^# \{0,1\}//;p}' "$self" >&2; exit 2 ;;
esac
