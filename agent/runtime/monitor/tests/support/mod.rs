//! Real containers for tests: a root of busybox in a detached tmpfs, a plan as the agent would make
//! it, and the agent's side of the conversation in blocking calls.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_runtime::Blob;
use berth_runtime::exit::ExitRecord;
use berth_runtime::plan::{
    Capabilities, Create, FdRole, Log, Mount, MountAttrs, MountSource, Namespaces, Node, NodeKind,
    Ns, Plan, Process, Propagation, Rlimit, Seccomp, Stdio, Step, StopRule, Sysctl, TargetKind,
};
use berth_runtime::protocol::{
    Attach, FrameReader, Hello, MAX_PAYLOAD, Reply, Request, StartFailed, encode_request,
};
use berth_sys::cgroup::Cgroup;
use berth_sys::mount::{MountAttr, new_fs};
use berth_sys::path::{OFlags, open_beneath, open_root};
use berth_sys::spawn::{SpawnedChild, spawn_sealed};

pub const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub const DOCKER_CAPS: u64 = 0xa804_25fb;
const LIMIT: Duration = Duration::from_secs(20);

/// The group that tests make theirs in; `None` where tests of this kind cannot run.
pub fn cgroup_root() -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: nothing tested");
        return None;
    }
    for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
        if Cgroup::open(root).is_ok() {
            return Some(PathBuf::from(root));
        }
    }
    eprintln!("no cgroup2 here: nothing tested");
    None
}

pub fn busybox() -> Option<Vec<u8>> {
    for path in ["/bin/busybox", "/usr/bin/busybox"] {
        if let Ok(bytes) = std::fs::read(path) {
            return Some(bytes);
        }
    }
    eprintln!("no busybox here (install busybox-static): nothing tested");
    None
}

/// The monitor as the agent runs it: from a sealed copy.
fn monitor() -> &'static OwnedFd {
    static COPY: OnceLock<OwnedFd> = OnceLock::new();
    COPY.get_or_init(|| {
        let path = std::env::var_os("BERTH_MONITOR").map_or_else(
            || PathBuf::from(env!("CARGO_BIN_EXE_berth-monitor")),
            PathBuf::from,
        );
        let mut file = std::fs::File::open(path).unwrap();
        berth_sys::fd::sealed_memfd("berth-monitor", &mut file).unwrap()
    })
}

pub fn empty_mount_ns() -> &'static OwnedFd {
    static NS: OnceLock<OwnedFd> = OnceLock::new();
    NS.get_or_init(|| berth_sys::ns::empty_mount_ns().unwrap())
}

pub fn netns() -> OwnedFd {
    berth_sys::ns::new_netns().unwrap()
}

/// Everything that a container needs on the host.
pub struct Host {
    pub dir: tempfile::TempDir,
    pub cgroup: Cgroup,
    group: String,
    parent: Cgroup,
    pub poked: UnixListener,
    pub root: OwnedFd,
}

impl Host {
    pub fn new() -> Option<Host> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let parent = cgroup_root()?;
        let busybox = busybox()?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let group = format!("berth-test-{}-{number}", std::process::id());
        let parent = Cgroup::open(parent).unwrap();
        let payload = parent
            .create_child(&group)
            .unwrap()
            .create_child("payload")
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let poked = UnixListener::bind(dir.path().join("monitor.sock")).unwrap();
        Some(Host {
            dir,
            cgroup: payload,
            group,
            parent,
            poked,
            root: root(&busybox),
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The contents of the log's entries, one stream.
    pub fn logged(&self, stream: &str) -> String {
        let mut text = String::new();
        for line in self.log().lines() {
            let (log, rest) = line
                .strip_prefix("{\"log\":\"")
                .unwrap()
                .split_once("\",\"stream\":\"")
                .unwrap();
            if rest.starts_with(stream) {
                text.push_str(&unescape(log));
            }
        }
        text
    }

    pub fn exit(&self) -> Option<ExitRecord> {
        ExitRecord::read_from(std::fs::File::open(self.path("exit")).unwrap().as_fd()).unwrap()
    }

    /// Waits for a monitor's news, as the agent's socket would get it.
    pub fn wait_poke(&self) -> String {
        assert!(
            berth_sys::poll::wait_readable(&self.poked, Some(LIMIT)).unwrap(),
            "nobody poked"
        );
        let (mut sock, _) = self.poked.accept().unwrap();
        let mut text = String::new();
        sock.read_to_string(&mut text).unwrap();
        text
    }

    pub fn poked_already(&self) -> bool {
        berth_sys::poll::readable_now(&self.poked).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.cgroup.kill();
        let _ = self.cgroup.wait_empty(LIMIT);
        let _ = self.parent.remove_child(&self.group);
    }
}

fn unescape(text: &str) -> String {
    text.replace("\\n", "\n")
        .replace("\\r", "\r")
        .replace("\\u0009", "\t")
        .replace("\\\"", "\"")
        .replace("\\u003c", "<")
        .replace("\\u003e", ">")
        .replace("\\u0026", "&")
        .replace("\\\\", "\\")
}

/// A root file system: busybox with its applets, and the directories that images have.
fn root(busybox: &[u8]) -> OwnedFd {
    let root = new_fs("tmpfs", &[("mode", "755")], &[], MountAttr::NONE).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode;
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "root", "closed"] {
        rustix::fs::mkdirat(&root, dir, mode(0o755)).unwrap();
    }
    rustix::fs::chmodat(&root, "tmp", mode(0o1777), rustix::fs::AtFlags::empty()).unwrap();
    rustix::fs::chmodat(&root, "closed", mode(0o700), rustix::fs::AtFlags::empty()).unwrap();
    let write = |name: &str, bytes: &[u8], bits: u32| {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let fd = open_beneath(&root, name, flags, bits).unwrap();
        rustix::fs::fchmod(&fd, mode(bits)).unwrap();
        std::fs::File::from(fd).write_all(bytes).unwrap();
    };
    write("bin/busybox", busybox, 0o755);
    for applet in [
        "sh", "cat", "ls", "echo", "sleep", "id", "grep", "stat", "mount", "kill", "true", "false",
        "env", "pwd", "tty", "stty", "dd", "head", "seq", "wc", "hostname", "readlink", "ps",
        "touch", "mknod", "od", "tr", "sort", "yes", "test", "chmod", "unshare",
    ] {
        rustix::fs::symlinkat("busybox", &root, format!("bin/{applet}")).unwrap();
    }
    write("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", 0o644);
    write("bin/noexec", b"#!/bin/sh\n", 0o644);
    write("bin/badformat", b"no program at all\n", 0o755);
    write("bin/badinterp", b"#!/no/such/interpreter\n", 0o755);
    root
}

pub fn own(target: &str, fstype: &str, options: &[(&str, &str)], attrs: MountAttrs) -> Step {
    Step::Mount(Mount {
        target: target.into(),
        kind: TargetKind::Own,
        source: MountSource::New {
            fstype: fstype.into(),
            options: options
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()))
                .collect(),
            flags: Vec::new(),
        },
        attrs,
        clear: MountAttrs::NONE,
        recursive: false,
        propagation: Propagation::Private,
        propagation_recursive: false,
        create: Create::Directory,
        mode_of_target: false,
    })
}

/// A bind of the request.
pub fn bind(number: u16, target: &str, attrs: MountAttrs) -> Step {
    Step::Mount(Mount {
        target: target.into(),
        kind: TargetKind::Request,
        source: MountSource::Fd(FdRole::Bind(number)),
        attrs,
        clear: MountAttrs::NONE,
        recursive: true,
        propagation: Propagation::Private,
        propagation_recursive: true,
        create: Create::LikeSource,
        mode_of_target: false,
    })
}

fn tree(terminal: bool) -> Vec<Step> {
    let quiet = MountAttrs::NOSUID
        .with(MountAttrs::NODEV)
        .with(MountAttrs::NOEXEC);
    let mut steps = vec![
        own("/proc", "proc", &[], quiet),
        own(
            "/dev",
            "tmpfs",
            &[("mode", "755"), ("size", "65536k")],
            MountAttrs::NOSUID.with(MountAttrs::STRICTATIME),
        ),
        own(
            "/dev/pts",
            "devpts",
            &[("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")],
            MountAttrs::NOSUID.with(MountAttrs::NOEXEC),
        ),
        own("/sys", "sysfs", &[], quiet.with(MountAttrs::RDONLY)),
        own(
            "/sys/fs/cgroup",
            "cgroup2",
            &[],
            quiet.with(MountAttrs::RDONLY),
        ),
        own("/dev/mqueue", "mqueue", &[], quiet),
        own(
            "/dev/shm",
            "tmpfs",
            &[("mode", "1777"), ("size", "64m")],
            quiet,
        ),
    ];
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        steps.push(Step::Node(Node {
            path: format!("/dev/{name}"),
            kind: NodeKind::Char,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
        }));
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        steps.push(Step::Symlink {
            path: format!("/dev/{name}"),
            target: target.into(),
        });
    }
    if terminal {
        steps.push(Step::Console);
    }
    steps
}

/// Allows everything but personality(2), which it answers with EPERM.
pub fn filter() -> Seccomp {
    let number = u32::try_from(135).unwrap();
    let mut bytes = Vec::new();
    for (code, jt, jf, k) in [
        (0x20_u16, 0_u8, 0_u8, 0_u32),
        (0x15, 0, 1, number),
        (0x06, 0, 0, 0x0005_0001),
        (0x06, 0, 0, 0x7fff_0000),
    ] {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
    }
    Seccomp {
        program: Blob(bytes),
        flags: 0,
    }
}

/// The plan of an ordinary container that runs `argv`.
pub fn plan(argv: &[&str]) -> Plan {
    Plan {
        id: ID.into(),
        title: "berth-test-mon".into(),
        fds: Vec::new(),
        namespaces: Namespaces {
            net: Ns::Join,
            pid: Ns::New,
            ipc: Ns::New,
            uts: Ns::New,
            cgroup: Ns::New,
        },
        hostname: "box".into(),
        domainname: String::new(),
        tree: tree(false),
        sysctls: vec![Sysctl {
            path: "net/ipv4/ip_unprivileged_port_start".into(),
            value: "0".into(),
            optional: true,
        }],
        readonly_paths: [
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        ]
        .map(String::from)
        .into(),
        masked_paths: [
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/timer_list",
            "/proc/nothing",
            "/sys/firmware",
        ]
        .map(String::from)
        .into(),
        root_readonly: false,
        process: Process {
            argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec!["PATH=/usr/bin:/bin".into(), "HOME=/root".into()],
            cwd: "/".into(),
            umask: 0o022,
            caps: Capabilities {
                bounding: DOCKER_CAPS,
                effective: DOCKER_CAPS,
                permitted: DOCKER_CAPS,
                inheritable: 0,
                ambient: 0,
            },
            seccomp: Some(filter()),
            rlimits: vec![Rlimit {
                resource: 7,
                soft: 1000,
                hard: 2000,
            }],
            keyring: "_berth".into(),
            ..Process::default()
        },
        stdio: Stdio::default(),
        log: Log::JsonFile {
            name: "log".into(),
            max_size: 0,
            max_files: 1,
            attrs: Vec::new(),
        },
        stop: StopRule {
            signal: 15,
            timeout_ms: 10_000,
        },
        monitor_oom_score_adj: -999,
    }
}

pub fn with_terminal(mut plan: Plan, size: (u16, u16)) -> Plan {
    plan.stdio = Stdio {
        stdin: true,
        stdin_once: false,
        terminal: Some(size),
    };
    plan.tree = tree(true);
    plan
}

/// The agent's end of one connection.
pub struct Agent {
    sock: UnixStream,
    reader: FrameReader<OwnedFd>,
    tag: u32,
    waiting: Vec<(u32, Reply, Vec<OwnedFd>)>,
}

impl Agent {
    pub fn new(sock: UnixStream) -> Agent {
        sock.set_read_timeout(Some(LIMIT)).unwrap();
        Agent {
            sock,
            reader: FrameReader::new(MAX_PAYLOAD),
            tag: 0,
            waiting: Vec::new(),
        }
    }

    pub fn send(&mut self, request: &Request, fds: &[&OwnedFd]) -> u32 {
        self.tag += 1;
        let bytes = encode_request(request, self.tag, fds.len()).unwrap();
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut sent = berth_sys::fd::send_with_fds(&self.sock, &bytes, &fds).unwrap();
        while sent < bytes.len() {
            sent += berth_sys::fd::send_with_fds(&self.sock, &bytes[sent..], &[]).unwrap();
        }
        self.tag
    }

    /// The next reply to a request; `None` when the monitor has closed.
    pub fn reply(&mut self, tag: u32) -> Option<(Reply, Vec<OwnedFd>)> {
        loop {
            if let Some(at) = self.waiting.iter().position(|(found, ..)| *found == tag) {
                let (_, reply, fds) = self.waiting.remove(at);
                return Some((reply, fds));
            }
            let mut buffer = [0; 4096];
            let (count, fds) = berth_sys::fd::recv_with_fds(&self.sock, &mut buffer).unwrap();
            if count == 0 {
                return None;
            }
            self.reader.push(&buffer[..count], fds).unwrap();
            while let Some(frame) = self.reader.next_reply().unwrap() {
                self.waiting.push((frame.tag, frame.message, frame.fds));
            }
        }
    }

    pub fn ask(&mut self, request: &Request) -> Reply {
        let tag = self.send(request, &[]);
        self.reply(tag).unwrap().0
    }

    /// Attaches and gives the client's end of the socket.
    pub fn attach(&mut self, attach: Attach) -> (UnixStream, u32, u32) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let tag = self.send(&Request::Attach(attach), &[&theirs.into()]);
        match self.reply(tag).unwrap().0 {
            Reply::Attached { session, .. } => (ours, session, tag),
            other => panic!("{other:?}"),
        }
    }
}

/// A monitor with its container.
pub struct Running {
    pub monitor: SpawnedChild,
    pub agent: Agent,
    pub start: u32,
    pub pid: u32,
    pub pidfd: Option<OwnedFd>,
}

/// Starts a monitor and sends it the plan; comes back when init is ready.
pub fn ready(host: &Host, plan: Plan) -> Result<Running, StartFailed> {
    ready_with(host, plan, Vec::new())
}

pub fn ready_with(
    host: &Host,
    plan: Plan,
    more: Vec<(FdRole, OwnedFd)>,
) -> Result<Running, StartFailed> {
    ready_from(host, plan, more, true)
}

/// `empty`: from the empty mount namespace, as the agent does it.
pub fn ready_from(
    host: &Host,
    mut plan: Plan,
    more: Vec<(FdRole, OwnedFd)>,
    empty: bool,
) -> Result<Running, StartFailed> {
    let mut fds = host_fds(host, matches!(plan.log, Log::JsonFile { .. }));
    if empty {
        fds.push((
            FdRole::MountNs,
            berth_sys::fd::dup(empty_mount_ns()).unwrap(),
        ));
    }
    if plan.namespaces.net == Ns::Join {
        fds.push((FdRole::NetNs, netns()));
    }
    fds.extend(more);
    plan.fds = fds.iter().map(|(role, _)| *role).collect();
    start(plan, &fds)
}

/// What every start needs of the host.
pub fn host_fds(host: &Host, log: bool) -> Vec<(FdRole, OwnedFd)> {
    let file = |name: &str, append: bool| -> OwnedFd {
        let mut options = std::fs::OpenOptions::new();
        options
            .read(true)
            .write(!append)
            .append(append)
            .create(true);
        options.open(host.path(name)).unwrap().into()
    };
    let sock = host.path("container.sock");
    let _ = std::fs::remove_file(&sock);
    let mut fds = vec![
        (FdRole::Root, berth_sys::fd::dup(&host.root).unwrap()),
        (
            FdRole::PayloadCgroup,
            berth_sys::fd::dup(&host.cgroup).unwrap(),
        ),
        (FdRole::ExitRecord, file("exit", false)),
        (FdRole::Listener, UnixListener::bind(&sock).unwrap().into()),
        (FdRole::RunRoot, open_root(host.dir.path()).unwrap()),
    ];
    if log {
        fds.push((FdRole::Log, file("log", true)));
        fds.push((FdRole::LogDir, open_root(host.dir.path()).unwrap()));
    }
    fds
}

/// Starts a monitor and sends it a plan with its descriptors.
pub fn start(plan: Plan, fds: &[(FdRole, OwnedFd)]) -> Result<Running, StartFailed> {
    plan.check().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let name = ["berth-monitor", ID];
    let monitor = spawn_sealed(monitor().as_fd(), &name, theirs.into(), None).unwrap();
    let mut agent = Agent::new(ours);
    let refs: Vec<_> = fds.iter().map(|(_, fd)| fd).collect();
    let start = agent.send(&Request::Start(Box::new(plan)), &refs);
    let mut running = Running {
        monitor,
        agent,
        start,
        pid: 0,
        pidfd: None,
    };
    match running.agent.reply(start).unwrap() {
        (Reply::Ready { pid }, mut fds) => {
            running.pid = pid;
            running.pidfd = fds.pop();
            Ok(running)
        }
        (Reply::StartFailed(failed), _) => {
            assert!(!running.wait_monitor().success());
            Err(failed)
        }
        other => panic!("{other:?}"),
    }
}

impl Running {
    pub fn go(&mut self) -> Result<(), StartFailed> {
        self.agent.send(&Request::Go, &[]);
        match self.agent.reply(self.start).unwrap().0 {
            Reply::Started { pid, started_at } => {
                assert_eq!((pid, started_at > 0), (self.pid, true));
                Ok(())
            }
            Reply::StartFailed(failed) => {
                assert!(!self.wait_monitor().success());
                Err(failed)
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn wait_monitor(&mut self) -> std::process::ExitStatus {
        assert!(
            berth_sys::poll::wait_readable(&self.monitor.pidfd, Some(LIMIT)).unwrap(),
            "the monitor hangs"
        );
        self.monitor.wait().unwrap()
    }

    pub fn connect(&self, host: &Host) -> Agent {
        self.connect_as(host, self.monitor.pid)
    }

    /// For a monitor that calls itself by the number of another pid namespace.
    pub fn connect_as(&self, host: &Host, pid: u32) -> Agent {
        let mut agent = Agent::new(UnixStream::connect(host.path("container.sock")).unwrap());
        match agent.ask(&Request::Hello(Hello::OURS)) {
            Reply::Hello {
                id, monitor_pid, ..
            } => {
                assert_eq!((id.as_str(), monitor_pid), (ID, pid));
            }
            other => panic!("{other:?}"),
        }
        agent
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

/// Runs a container to its end.
pub fn run(host: &Host, plan: Plan) -> Result<ExitRecord, StartFailed> {
    let mut running = ready(host, plan)?;
    running.go()?;
    assert!(running.wait_monitor().success());
    Ok(host.exit().expect("an exit record"))
}

/// A shell script in an ordinary container: its exit code and what it wrote to standard output.
pub fn sh(script: &str) -> Option<(i32, String)> {
    let host = Host::new()?;
    let record = run(&host, plan(&["sh", "-c", script])).unwrap();
    Some((record.exit_code(), host.logged("stdout")))
}

/// A shell with a pipe as its input.
#[allow(
    clippy::disallowed_methods,
    reason = "the tests' own helper, not the product's"
)]
pub fn shell(script: &str) -> Shell {
    use std::process::{Command, Stdio};
    let mut command = Command::new("/bin/sh");
    Shell(
        command
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    )
}

/// Ends with the test, however that ends.
pub struct Shell(pub std::process::Child);

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An attachment to everything, framed as for a container without a terminal.
pub fn all() -> Attach {
    Attach {
        stdin: true,
        stdout: true,
        stderr: true,
        framed: true,
        ..Attach::default()
    }
}

/// The same without frames.
pub fn raw() -> Attach {
    Attach {
        framed: false,
        ..all()
    }
}

/// All until the end.
pub fn read_all(sock: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    sock.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Takes Docker's frames apart: what came of each stream.
pub fn unframe(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while !bytes.is_empty() {
        let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
        assert_eq!(bytes[1..4], [0; 3]);
        let body = &bytes[8..8 + length];
        match bytes[0] {
            1 => out.extend_from_slice(body),
            2 => err.extend_from_slice(body),
            other => panic!("stream {other}"),
        }
        bytes = &bytes[8 + length..];
    }
    (out, err)
}

/// Reads until the text has appeared.
pub fn read_until(sock: &mut UnixStream, text: &str) -> String {
    let mut got = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = sock.read(&mut buffer).unwrap();
        assert!(count > 0, "ended at {:?}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..count]);
        if String::from_utf8_lossy(&got).contains(text) {
            return String::from_utf8(got).unwrap();
        }
    }
}
