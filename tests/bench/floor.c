/* The floor: the kernel work that any engine must do for one container, with nothing around it, timed. No API, no
 * image store, no database, no log. One round is: a cgroup; a process in new namespaces born in it; overlay, proc, sys,
 * /dev with nodes, devpts, shm, mqueue, cgroup2, three bound files; pivot_root; masked and read-only paths; a veth to a
 * bridge with address and route; Docker's fourteen capabilities; a seccomp filter; execve of a static `true`; reaping;
 * taking down. Run as root in a network namespace of its own.
 *
 *   floor ROOT WORK CGROUP2 COUNT WORKERS   one line of JSON: median, p10 and p90 in ms, rounds per second */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/veth.h>
#include <net/if.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void need(long result, const char *what) {
    if (result < 0) { fprintf(stderr, "floor: %s: %s\n", what, strerror(errno)); _exit(1); }
}
#define NEED(call) need((long)(call), #call)

static double clock_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* A netlink request that grows at its end. */
struct message { struct nlmsghdr head; char body[700]; };

static void begin(struct message *m, int type, int flags, const void *fixed, size_t size) {
    memset(m, 0, sizeof *m);
    m->head = (struct nlmsghdr){.nlmsg_len = NLMSG_LENGTH(size), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags};
    memcpy(NLMSG_DATA(&m->head), fixed, size);
}

static struct rtattr *attribute(struct message *m, int type, const void *data, size_t size) {
    struct rtattr *a = (struct rtattr *)((char *)m + NLMSG_ALIGN(m->head.nlmsg_len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(size);
    if (size) memcpy(RTA_DATA(a), data, size);
    m->head.nlmsg_len = (char *)a - (char *)m + RTA_ALIGN(a->rta_len);
    return a;
}

static void close_nest(struct message *m, struct rtattr *nest) { nest->rta_len = (char *)m + m->head.nlmsg_len - (char *)nest; }

static int ask(int netlink, struct message *m) {
    char answer[2048];
    if (send(netlink, m, m->head.nlmsg_len, 0) < 0 || recv(netlink, answer, sizeof answer, 0) < 0) return -1;
    struct nlmsghdr *head = (struct nlmsghdr *)answer;
    errno = head->nlmsg_type == NLMSG_ERROR ? -((struct nlmsgerr *)NLMSG_DATA(head))->error : 0;
    return errno ? -1 : 0;
}

static int netlink_open(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    NEED(fd);
    return fd;
}

static int set_up(int netlink, int index) {
    struct message m;
    struct ifinfomsg link = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    begin(&m, RTM_NEWLINK, 0, &link, sizeof link);
    return ask(netlink, &m);
}

static int give_address(int netlink, int index, uint32_t address) {
    struct message m;
    struct ifaddrmsg fixed = {.ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = index};
    begin(&m, RTM_NEWADDR, NLM_F_CREATE, &fixed, sizeof fixed);
    attribute(&m, IFA_LOCAL, &address, 4);
    attribute(&m, IFA_ADDRESS, &address, 4);
    return ask(netlink, &m);
}

static int bridge;

static void make_bridge(int netlink) {
    struct message m;
    struct ifinfomsg link = {0};
    begin(&m, RTM_NEWLINK, NLM_F_CREATE, &link, sizeof link);
    attribute(&m, IFLA_IFNAME, "yard0", 6);
    struct rtattr *info = attribute(&m, IFLA_LINKINFO, NULL, 0);
    attribute(&m, IFLA_INFO_KIND, "bridge", 6);
    close_nest(&m, info);
    if (ask(netlink, &m) < 0 && errno != EEXIST) need(-1, "bridge");
    bridge = if_nametoindex("yard0");
    if (give_address(netlink, bridge, inet_addr("10.199.0.1")) < 0 && errno != EEXIST) need(-1, "bridge address");
    NEED(set_up(netlink, bridge));
}

/* Both ends in one message: the host's on the bridge and up, the other born in the container's namespace. */
static void make_veth(int netlink, const char *name, pid_t pid) {
    struct message m;
    struct ifinfomsg link = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, peer = {0};
    begin(&m, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
    attribute(&m, IFLA_IFNAME, name, strlen(name) + 1);
    attribute(&m, IFLA_MASTER, &bridge, 4);
    struct rtattr *info = attribute(&m, IFLA_LINKINFO, NULL, 0);
    attribute(&m, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = attribute(&m, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *other = attribute(&m, VETH_INFO_PEER, &peer, sizeof peer);
    attribute(&m, IFLA_IFNAME, "eth0", 5);
    attribute(&m, IFLA_NET_NS_PID, &pid, 4);
    close_nest(&m, other);
    close_nest(&m, data);
    close_nest(&m, info);
    NEED(ask(netlink, &m));
}

static const int kept[] = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31};
static struct sock_fprog filter;

/* About as many instructions as Docker's profile gives: every known call but some fifty. */
static void make_filter(void) {
    static const char *refused = " acct add_key bpf clock_adjtime clock_settime create_module delete_module fanotify_init finit_module fsconfig fsmount "
        "fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl "
        "lookup_dcookie mbind migrate_pages mount mount_setattr move_mount move_pages nfsservctl open_by_handle_at open_tree perf_event_open pivot_root "
        "process_madvise query_module quotactl reboot request_key set_mempolicy setns settimeofday swapoff swapon sysfs _sysctl umount2 unshare uselib "
        "userfaultfd ustat vhangup ";
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    for (int number = 0; number < 460; number++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number), quoted[80];
        if (name) {
            snprintf(quoted, sizeof quoted, " %s ", name);
            if (!strstr(refused, quoted)) seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0);
        }
        free(name);
    }
    int memory = memfd_create("filter", MFD_CLOEXEC);
    NEED(seccomp_export_bpf(context, memory));
    seccomp_release(context);
    size_t size = lseek(memory, 0, SEEK_END);
    filter.filter = mmap(NULL, size, PROT_READ, MAP_PRIVATE, memory, 0);
    filter.len = size / sizeof(struct sock_filter);
    close(memory);
}

static void confine(void) {
    uint64_t set = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) set |= 1ULL << kept[i];
    for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
        if (!(set >> cap & 1)) prctl(PR_CAPBSET_DROP, cap);
    NEED(syscall(SYS_seccomp, 1, 0, &filter));
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{set, set, 0}, {set >> 32, set >> 32, 0}};
    NEED(syscall(SYS_capset, &header, data));
}

static const char *files[] = {"hosts", "hostname", "resolv.conf"};

static void inside(const char *root, const char *dir, int number, int gate) {
    char text[1200], target[64];
    const unsigned long strict = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    NEED(mount(NULL, "/", NULL, MS_SLAVE | MS_REC, NULL));
    snprintf(text, sizeof text, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work", root, dir, dir);
    NEED(chdir(dir));
    NEED(mount("overlay", "merged", "overlay", 0, text));
    NEED(chdir("merged"));
    NEED(mount("proc", "proc", "proc", strict, NULL));
    NEED(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    static const struct { const char *name; int major, minor; } nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
    umask(0);
    for (size_t i = 0; i < 6; i++) {
        snprintf(target, sizeof target, "dev/%s", nodes[i].name);
        NEED(mknod(target, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)));
    }
    static const char *links[][2] = {{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"}, {"/proc/kcore", "dev/core"}};
    for (size_t i = 0; i < 6; i++) NEED(symlink(links[i][0], links[i][1]));
    NEED(mkdir("dev/pts", 0755)); NEED(mkdir("dev/shm", 01777)); NEED(mkdir("dev/mqueue", 0755));
    NEED(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    NEED(mount("shm", "dev/shm", "tmpfs", strict, "mode=1777,size=65536k"));
    NEED(mount("mqueue", "dev/mqueue", "mqueue", strict, NULL));
    NEED(mount("sysfs", "sys", "sysfs", strict | MS_RDONLY, NULL));
    NEED(mount("cgroup2", "sys/fs/cgroup", "cgroup2", strict | MS_RDONLY, NULL));
    for (size_t i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "%s/%s", dir, files[i]);
        snprintf(target, sizeof target, "etc/%s", files[i]);
        NEED(mount(text, target, NULL, MS_BIND, NULL));
    }
    NEED(syscall(SYS_pivot_root, ".", "."));
    NEED(umount2(".", MNT_DETACH));
    NEED(chdir("/"));
    static const char *fixed[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (size_t i = 0; i < 5; i++)
        if (mount(fixed[i], fixed[i], NULL, MS_BIND | MS_REC, NULL) == 0) mount(NULL, fixed[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | strict, NULL);
    static const char *masked[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug"};
    for (size_t i = 0; i < 5; i++) mount("/dev/null", masked[i], NULL, MS_BIND, NULL);
    static const char *emptied[] = {"/proc/acpi", "/proc/scsi", "/sys/firmware"};
    for (size_t i = 0; i < 3; i++) mount("tmpfs", emptied[i], "tmpfs", MS_RDONLY, "size=0k");
    NEED(sethostname("yard", 4));
    char byte;
    NEED(read(gate, &byte, 1) == 1 ? 0 : -1);
    int netlink = netlink_open(), eth = if_nametoindex("eth0");
    NEED(set_up(netlink, 1));
    NEED(set_up(netlink, eth));
    NEED(give_address(netlink, eth, htonl(ntohl(inet_addr("10.199.0.2")) + number % 60000)));
    struct message m;
    struct rtmsg route = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
    begin(&m, RTM_NEWROUTE, NLM_F_CREATE, &route, sizeof route);
    uint32_t gateway = inet_addr("10.199.0.1");
    attribute(&m, RTA_GATEWAY, &gateway, 4);
    NEED(ask(netlink, &m));
    close(netlink);
    confine();
    char *argv[] = {"true", NULL}, *env[] = {"PATH=/bin", NULL};
    execve("/bin/true", argv, env);
    need(-1, "execve /bin/true");
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    NEED(fd);
    NEED(write(fd, text, strlen(text)));
    close(fd);
}

static const char *cgroups;

static double once(const char *root, const char *work, int number, int netlink) {
    char dir[300], path[400], group[300], veth[16];
    static const char *parts[] = {"upper", "work", "merged"};
    double begun = clock_ms();
    snprintf(dir, sizeof dir, "%s/%d", work, number);
    NEED(mkdir(dir, 0700));
    for (int i = 0; i < 3; i++) { snprintf(path, sizeof path, "%s/%s", dir, parts[i]); NEED(mkdir(path, 0755)); }
    for (int i = 0; i < 3; i++) { snprintf(path, sizeof path, "%s/%s", dir, files[i]); put(path, "127.0.0.1 localhost\n"); }
    snprintf(group, sizeof group, "%s/yard-%d", cgroups, number);
    NEED(mkdir(group, 0755));
    int into = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC), gate[2], output[2], pidfd = -1;
    NEED(into); NEED(pipe2(gate, O_CLOEXEC)); NEED(pipe2(output, O_CLOEXEC));
    struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | CLONE_NEWNET | CLONE_PIDFD | CLONE_INTO_CGROUP,
        .exit_signal = SIGCHLD, .pidfd = (uintptr_t)&pidfd, .cgroup = into};
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    NEED(pid);
    if (pid == 0) { close(gate[1]); inside(root, dir, number, gate[0]); }
    snprintf(veth, sizeof veth, "yv%d", number);
    make_veth(netlink, veth, pid);
    NEED(write(gate[1], "g", 1));
    int status;
    NEED(waitpid(pid, &status, 0));
    if (status) { fprintf(stderr, "floor: the container ended with %x\n", status); _exit(1); }
    /* The veth dies with its namespace, later and by itself: deleting it would cost twenty times the rest. */
    close(into); close(pidfd); close(gate[0]); close(gate[1]); close(output[0]); close(output[1]);
    rmdir(group);
    for (int i = 0; i < 3; i++) { snprintf(path, sizeof path, "%s/%s", dir, files[i]); unlink(path); }
    snprintf(path, sizeof path, "%s/work/work", dir);
    rmdir(path);
    for (int i = 0; i < 3; i++) { snprintf(path, sizeof path, "%s/%s", dir, parts[i]); rmdir(path); }
    rmdir(dir);
    return clock_ms() - begun;
}

static int by_size(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

int main(int argc, char **argv) {
    if (argc != 6) { fprintf(stderr, "usage: floor ROOT WORK CGROUP2 COUNT WORKERS\n"); return 2; }
    const char *root = argv[1], *work = argv[2];
    cgroups = argv[3];
    int workers = atoi(argv[5]), each = atoi(argv[4]) / workers, count = each * workers;
    make_filter();
    make_bridge(netlink_open());
    double *took = mmap(NULL, sizeof *took * count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), begun = clock_ms();
    for (int worker = 0; worker < workers; worker++)
        if (fork() == 0) {
            int netlink = netlink_open();
            for (int i = 0; i < each; i++) took[worker * each + i] = once(root, work, getpid() % 10000 * 1000 + i, netlink);
            _exit(0);
        }
    int status, failed = 0;
    while (wait(&status) > 0) failed |= status;
    double wall = clock_ms() - begun;
    if (failed) return 1;
    qsort(took, count, sizeof *took, by_size);
    printf("{\"median_ms\":%.3f,\"p10_ms\":%.3f,\"p90_ms\":%.3f,\"per_second\":%.1f}\n", took[count / 2], took[count / 10], took[count * 9 / 10], count / wall * 1e3);
}
