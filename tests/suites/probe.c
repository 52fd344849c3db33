/* Runs inside a container and tries what a container must not be able to do. Each line of output is one attempt:
 * its name, then `ok` or the name of the errno. It is static, because images of the suites hold no libraries. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(const char *name, long result) {
    printf("%s %s\n", name, result >= 0 ? "ok" : strerrorname_np(errno));
    fflush(stdout);
}

#define TRY(nr, ...) report(#nr + 4, (errno = 0, syscall(nr, ##__VA_ARGS__)))

/* The argument checks of these calls come after seccomp: without a filter they give EFAULT, EINVAL, EBADF or work. */
static void forbidden(void) {
    TRY(SYS_acct, -1L);
    TRY(SYS_add_key, 0, 0, 0, 0, 0);
    TRY(SYS_bpf, 0, 0, 0);
    TRY(SYS_clock_settime, 0, 0);
    TRY(SYS_delete_module, 0, 0);
    TRY(SYS_fanotify_init, -1, -1);
    TRY(SYS_finit_module, -1, 0, 0);
    TRY(SYS_fsconfig, -1, 0, 0, 0, 0);
    TRY(SYS_fsmount, -1, 0, 0);
    TRY(SYS_fsopen, 0, 0);
    TRY(SYS_fspick, -1, 0, 0);
    TRY(SYS_init_module, 0, 0, 0);
    TRY(SYS_io_uring_enter, -1, 0, 0, 0, 0, 0);
    TRY(SYS_io_uring_register, -1, 0, 0, 0);
    TRY(SYS_io_uring_setup, 0, 0);
    TRY(SYS_kcmp, 1, 1, -1, 0, 0);
    TRY(SYS_kexec_load, 0, 0, 0, 0);
    TRY(SYS_keyctl, -1, 0, 0, 0, 0);
    TRY(SYS_lookup_dcookie, 0, 0, 0);
    TRY(SYS_mount, 0, 0, 0, 0, 0);
    TRY(SYS_mount_setattr, -1, "", 0, 0, 0);
    TRY(SYS_move_mount, -1, "", -1, "", 0);
    TRY(SYS_move_pages, 0, 0, 0, 0, 0, 0);
    TRY(SYS_migrate_pages, 0, 0, 0, 0);
    TRY(SYS_mbind, 0, 0, 0, 0, 0, 0);
    TRY(SYS_set_mempolicy, -1, 0, 0);
    TRY(SYS_open_by_handle_at, -1, 0, 0);
    TRY(SYS_open_tree, -1, "", 0);
    TRY(SYS_perf_event_open, 0, 0, 0, 0, 0);
    TRY(SYS_pivot_root, "/", "/");
    TRY(SYS_process_madvise, -1, 0, 0, 0, 0);
    TRY(SYS_quotactl, 0, 0, 0, 0);
    TRY(SYS_reboot, 0, 0, 0, 0);
    TRY(SYS_request_key, 0, 0, 0, 0);
    TRY(SYS_setdomainname, "x", -1);
    TRY(SYS_sethostname, "x", -1);
    TRY(SYS_setns, -1, 0);
    TRY(SYS_settimeofday, 0, 0);
    TRY(SYS_swapoff, 0);
    TRY(SYS_swapon, 0, 0);
    TRY(SYS_syslog, 10, 0, 0);
    TRY(SYS_umount2, "/proc", 0);
    TRY(SYS_unshare, CLONE_NEWNS);
    TRY(SYS_userfaultfd, 0);
    TRY(SYS_vhangup);
#ifdef __x86_64__
    TRY(SYS_create_module, 0, 0);
    TRY(SYS_iopl, 3);
    TRY(SYS_ioperm, 0, 1, 1);
    TRY(SYS_kexec_file_load, -1, -1, 0, 0, 0);
    TRY(SYS_nfsservctl, 0, 0, 0);
    TRY(SYS__sysctl, 0);
    TRY(SYS_sysfs, 3);
    TRY(SYS_uselib, 0);
    TRY(SYS_ustat, 0, 0);
    TRY(SYS_get_kernel_syms, 0);
    TRY(SYS_query_module, 0, 0, 0, 0, 0);
#endif
}

/* Calls that ordinary programs need: the filter must let them through, whatever the kernel then says. */
static void allowed(void) {
    TRY(SYS_getpid);
    TRY(SYS_openat2, -1, "", 0, 0);
    TRY(SYS_memfd_create, "x", 0);
    TRY(SYS_pidfd_open, getpid(), 0);
    TRY(SYS_close_range, 900, 901, 0);
    TRY(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0);
    TRY(SYS_mknodat, AT_FDCWD, "/tmp/probe-fifo", S_IFIFO | 0600, 0);
    TRY(SYS_chroot, "/");
    TRY(SYS_ptrace, -1, 0, 0, 0);
    TRY(SYS_getrandom, 0, 0, 0);
    TRY(SYS_statx, -1, "", 0, 0, 0);
    TRY(SYS_epoll_create1, 0);
    TRY(SYS_inotify_init1, 0);
    TRY(SYS_setpriority, 0, 0, 10);
}

static void sockets(void) {
    static const struct { const char *name; int family, type; } list[] = {
        {"unix", AF_UNIX, SOCK_STREAM}, {"inet", AF_INET, SOCK_STREAM}, {"inet6", AF_INET6, SOCK_STREAM},
        {"netlink", AF_NETLINK, SOCK_RAW}, {"packet", AF_PACKET, SOCK_RAW}, {"alg", 38, SOCK_SEQPACKET}, {"vsock", 40, SOCK_STREAM},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        errno = 0;
        report(list[i].name, socket(list[i].family, list[i].type, 0));
    }
}

static void personalities(void) {
    static const unsigned long list[] = {0x0, 0x8, 0x20000, 0x20008, 0xffffffff, 0x1, 0x0040000, 0x400000, 0x4000000, 0x100000008UL, 0xffffffffffffffffUL};
    char name[32];
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        snprintf(name, sizeof name, "%#lx", list[i]);
        errno = 0;
        report(name, syscall(SYS_personality, list[i]));
        syscall(SYS_personality, 0);
    }
}

static void clones(void) {
    static const struct { const char *name; unsigned long flags; } list[] = {
        {"plain", 0}, {"newns", CLONE_NEWNS}, {"newuser", CLONE_NEWUSER}, {"newpid", CLONE_NEWPID}, {"newnet", CLONE_NEWNET},
        {"newuts", CLONE_NEWUTS}, {"newipc", CLONE_NEWIPC}, {"newcgroup", CLONE_NEWCGROUP},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        errno = 0;
        long pid = syscall(SYS_clone, list[i].flags | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) _exit(0);
        report(list[i].name, pid);
        if (pid > 0) waitpid(pid, 0, 0);
    }
    struct clone_args args = {.exit_signal = SIGCHLD};
    errno = 0;
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) _exit(0);
    report("clone3", pid);
    errno = 0;
    report("unknown", syscall(2000));
#ifdef __x86_64__
    errno = 0;
    report("x32-mount", syscall(0x40000000 | SYS_mount, 0, 0, 0, 0, 0));
    /* mount(2) by its 32-bit number; the kernel may be built without it, then nothing answers. */
    pid = fork();
    if (pid == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(21), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0) : "memory");
        errno = result < 0 ? -result : 0;
        report("x86-mount", result < 0 ? -1 : 0);
        _exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) printf("x86-mount signal%d\n", WTERMSIG(status));
#endif
}

static void descriptors(void) {
    for (int fd = 0; fd < 4096; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("%d\n", fd);
}

/* Makes a node and opens it: making is harmless, opening is what the device fence is about. */
static void device(const char *kind, int major, int minor) {
    char path[64], name[64];
    snprintf(path, sizeof path, "/dev/probe-%s-%d-%d", kind, major, minor);
    snprintf(name, sizeof name, "%s:%d:%d", kind, major, minor);
    unlink(path);
    errno = 0;
    if (mknod(path, (*kind == 'b' ? S_IFBLK : S_IFCHR) | 0666, makedev(major, minor)) < 0) {
        printf("%s mknod-%s\n", name, strerrorname_np(errno));
        return;
    }
    errno = 0;
    int fd = open(path, O_RDWR | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno != EPERM) { errno = 0; fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY); }
    report(name, fd);
    if (fd >= 0) close(fd);
    unlink(path);
}

/* Tries to write into whatever program other processes run. */
static void executables(void) {
    int written = 0, seen = 0;
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    while (proc && (entry = readdir(proc))) {
        char path[300];
        if (entry->d_name[0] < '0' || entry->d_name[0] > '9' || atoi(entry->d_name) == getpid()) continue;
        snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
        int fd = open(path, O_WRONLY);
        seen++;
        if (fd >= 0) written++;
    }
    printf("seen %d\nwritable %d\n", seen, written);
}

/* Exchanges two names as fast as it can, until it is killed. */
static void swap(const char *one, const char *two) {
    printf("swapping\n");
    fflush(stdout);
    for (;;) syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, two, 2 /* RENAME_EXCHANGE */);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "forbidden")) forbidden();
    else if (!strcmp(what, "allowed")) allowed();
    else if (!strcmp(what, "sockets")) sockets();
    else if (!strcmp(what, "personalities")) personalities();
    else if (!strcmp(what, "clones")) clones();
    else if (!strcmp(what, "descriptors")) descriptors();
    else if (!strcmp(what, "executables")) executables();
    else if (!strcmp(what, "device") && argc > 2)
        for (int i = 2; i < argc; i++) {
            char kind[2]; int major, minor;
            if (sscanf(argv[i], "%1[bc]:%d:%d", kind, &major, &minor) == 3) device(kind, major, minor);
        }
    else if (!strcmp(what, "open") && argc > 2)
        for (int i = 2; i < argc; i++) { errno = 0; report(argv[i], open(argv[i], O_RDWR)); }
    else if (!strcmp(what, "fstype") && argc > 2) {
        struct statfs s;
        if (statfs(argv[2], &s) == 0) printf("%#lx\n", (unsigned long)s.f_type); else report(argv[2], -1);
    } else if (!strcmp(what, "swap") && argc > 3) swap(argv[2], argv[3]);
    else if (!strcmp(what, "umask")) printf("%04o\n", umask(0));
    else return 2;
    return 0;
}
