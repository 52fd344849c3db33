//! Starting programs: the only place of the workspace that does.
//!
//! Every child gets an explicit environment and explicit descriptors, and std's posix_spawn path is
//! kept (no `pre_exec`, no ids): a fork of an agent with a big heap would copy its page tables while
//! the caller waits.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Where tools are looked for; the agent's own environment is not asked.
const TOOL_PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How much a tool may write to each of its outputs; what is beyond is read and dropped.
const MAX_OUTPUT: usize = 1 << 20;

/// A child that was started from a descriptor.
///
/// Dropping it neither ends nor reaps the child.
#[derive(Debug)]
pub struct SpawnedChild {
    /// Its number.
    pub pid: u32,
    /// Its descriptor: readable when it has ended.
    pub pidfd: OwnedFd,
    child: Child,
}

impl SpawnedChild {
    /// Waits for the end and reaps.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// The status if it has ended (and reaps then).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// SIGKILL; no error when it has ended already.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }
}

/// Runs the program behind a descriptor (a sealed memfd): `args[0]` is what it is called, the rest
/// are its arguments. Empty environment, working directory `/`, standard output null, and no
/// descriptor but the three standard ones.
pub fn spawn_sealed(
    exe: BorrowedFd<'_>,
    args: &[&str],
    stdin: OwnedFd,
    stderr: Option<OwnedFd>,
) -> io::Result<SpawnedChild> {
    let Some((name, rest)) = args.split_first() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a program needs a name",
        ));
    };
    let mut command = command(format!("/proc/self/fd/{}", crate::fd::number(exe)).as_ref());
    command
        .arg0(name)
        .args(rest)
        .stdin(Stdio::from(stdin))
        .stdout(Stdio::null())
        .stderr(stderr.map_or_else(Stdio::null, Stdio::from));
    let mut child = command.spawn()?;
    let pid = child.id();
    // Nobody reaps this child but through `child`, so the number is its own for certain.
    match crate::pidfd::open(pid) {
        Ok(pidfd) => Ok(SpawnedChild { pid, pidfd, child }),
        Err(error) => {
            // Only for want of descriptors or memory: a child that nobody can watch must not live.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// What a tool did.
#[derive(Debug)]
pub struct ToolOutput {
    pub status: ExitStatus,
    /// At most 1 MiB.
    pub stdout: Vec<u8>,
    /// At most 1 MiB.
    pub stderr: Vec<u8>,
}

/// Runs a program of the host to its end: `program` is a bare name, looked up in the system's
/// directories, or an absolute path; its environment is `PATH` and `LC_ALL=C`.
///
/// After `deadline` it is killed and the answer is `TimedOut`. `NotFound` when there is no such
/// program.
pub fn run_tool(
    program: &str,
    args: &[&str],
    input: &[u8],
    deadline: Duration,
) -> io::Result<ToolOutput> {
    let end = Instant::now() + deadline;
    let path = find_tool(program)?;
    let mut child = command(path.as_os_str())
        .args(args)
        .env("PATH", TOOL_PATH.join(":"))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let result = talk(&mut child, input, end);
    if result.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let (stdout, stderr) = result?;
    Ok(ToolOutput {
        status,
        stdout,
        stderr,
    })
}

#[allow(
    clippy::disallowed_methods,
    reason = "this module is where the ban points to"
)]
fn command(program: &OsStr) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/");
    command
}

fn find_tool(program: &str) -> io::Result<PathBuf> {
    if program.starts_with('/') {
        return Ok(PathBuf::from(program));
    }
    TOOL_PATH
        .iter()
        .map(|dir| PathBuf::from(dir).join(program))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("no program {program} on this system"),
            )
        })
}

/// Feeds and drains the child on one thread until both outputs are closed and it has ended.
fn talk(child: &mut Child, mut input: &[u8], end: Instant) -> io::Result<(Vec<u8>, Vec<u8>)> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let pidfd = crate::pidfd::open(child.id())?;
    let mut stdin = child.stdin.take().map(OwnedFd::from);
    let mut outputs = [
        (child.stdout.take().map(OwnedFd::from), Vec::new()),
        (child.stderr.take().map(OwnedFd::from), Vec::new()),
    ];
    for fd in stdin
        .iter()
        .chain(outputs.iter().filter_map(|(fd, _)| fd.as_ref()))
    {
        crate::fd::set_nonblocking(fd, true)?;
    }
    loop {
        if input.is_empty() {
            stdin = None;
        }
        // A grandchild may keep an output open for ever: the child's own end is enough, after what
        // it wrote has been read.
        let ended = !crate::pidfd::is_alive(&pidfd)?;
        for (fd, bytes) in &mut outputs {
            if fd.as_ref().is_some_and(|fd| drain(fd, bytes)) {
                *fd = None;
            }
        }
        if ended || outputs.iter().all(|(fd, _)| fd.is_none()) && stdin.is_none() {
            break;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        for (fd, _) in &outputs {
            fds.extend(fd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        }
        fds.extend(stdin.as_ref().map(|fd| PollFd::new(fd, PollFlags::OUT)));
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(fd) = &stdin {
            match rustix::io::write(fd, input) {
                Ok(count) => input = &input[count..],
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // It does not want the rest; its status says whether that matters.
                Err(_) => input = &[],
            }
        }
    }
    // Both outputs closed, but not ended: wait, though not beyond the deadline.
    let left = end.saturating_duration_since(Instant::now());
    if !crate::poll::wait_readable(pidfd.as_fd(), Some(left))? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let [(_, stdout), (_, stderr)] = outputs;
    Ok((stdout, stderr))
}

/// Reads what is there; true at the end of the file. What exceeds the bound is dropped.
fn drain(fd: &OwnedFd, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 8192];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return true,
            Ok(count) => {
                let room = MAX_OUTPUT.saturating_sub(bytes.len());
                bytes.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::OFlags;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn tools_are_fed_and_heard() {
        let out = run_tool("sh", &["-c", "cat; echo err >&2; exit 3"], b"text", LONG).unwrap();
        assert_eq!(out.status.code(), Some(3));
        assert_eq!(
            (out.stdout.as_slice(), out.stderr.as_slice()),
            (&b"text"[..], &b"err\n"[..])
        );
        let out = run_tool("env", &[], b"", LONG).unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert_eq!(
            text.lines()
                .filter(|line| !line.starts_with("PATH=") && *line != "LC_ALL=C")
                .count(),
            0
        );
    }

    #[test]
    fn output_is_bounded_and_input_may_be_unread() {
        let out = run_tool("head", &["-c", "3000000", "/dev/zero"], b"", LONG).unwrap();
        assert_eq!(out.stdout.len(), MAX_OUTPUT);
        let out = run_tool("true", &[], &vec![b'x'; 1 << 20], LONG).unwrap();
        assert!(out.status.success());
    }

    #[test]
    fn a_tool_that_hangs_is_ended() {
        let started = Instant::now();
        let error = run_tool("sleep", &["600"], b"", Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() < LONG);
        let error = run_tool("no-such-program", &[], b"", LONG).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_grandchild_does_not_hold_the_answer() {
        let out = run_tool("sh", &["-c", "sleep 3 & echo done"], b"", LONG).unwrap();
        assert_eq!(out.stdout, b"done\n");
    }

    #[test]
    fn a_sealed_copy_runs_with_nothing_of_ours() {
        let mut busy = std::fs::File::open("/bin/ls").unwrap();
        let exe = crate::fd::sealed_memfd("ls", &mut busy).unwrap();
        let null = crate::path::open_host("/dev/null", OFlags::RDONLY).unwrap();
        let (read, write) = crate::fd::pipe().unwrap();
        // A listing of something missing: the message goes to standard error.
        let mut child =
            spawn_sealed(exe.as_fd(), &["name", "/no/such/file"], null, Some(write)).unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!crate::pidfd::is_alive(&child.pidfd).unwrap());
        let mut text = String::new();
        io::Read::read_to_string(&mut std::fs::File::from(read), &mut text).unwrap();
        assert!(text.starts_with("name: "), "{text}");
    }
}
