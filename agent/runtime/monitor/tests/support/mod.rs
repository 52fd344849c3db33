//! Real containers for tests: a root of busybox in a detached tmpfs, a plan as the agent would make
//! it, and the agent's side of the conversation in blocking calls.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its part of it"
)]

mod plans;

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use berth_runtime::exit::ExitRecord;
use berth_runtime::plan::{FdRole, Log, Ns, Plan};
use berth_runtime::protocol::{
    Attach, FrameReader, Hello, MAX_PAYLOAD, Reply, Request, StartFailed, encode_request,
};
use berth_sys::cgroup::Cgroup;
use berth_sys::mount::{MountAttr, new_fs};
use berth_sys::path::{OFlags, open_beneath, open_root};
use berth_sys::spawn::{SpawnedChild, spawn_sealed};

#[allow(unused_imports, reason = "each test file uses its part of it")]
pub use plans::{DOCKER_CAPS, bind, filter, own, plan, with_terminal};

pub const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
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
