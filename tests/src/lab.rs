//! The lab from a test's side: boots it when it is not up, runs commands inside, reaches the API from outside.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::http::Client;
use crate::image::{BUSYBOX, busybox};
use crate::output::Output;
use crate::pid;

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    script: PathBuf,
    state: PathBuf,
    /// The host's pid of its pid 1.
    init: u32,
}

impl Lab {
    /// The lab of this test run (`LAB`), booted on first use, with the busybox image loaded.
    pub fn get() -> &'static Lab {
        static THE: OnceLock<Lab> = OnceLock::new();
        THE.get_or_init(|| {
            let lab = Lab::boot();
            lab.ensure_image(BUSYBOX, busybox);
            lab
        })
    }

    /// The lab without anything done to it yet.
    pub fn boot() -> Lab {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab.sh");
        let up = Command::new(&script)
            .arg("up")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            up.status.success(),
            "the lab does not come up:\n{}",
            String::from_utf8_lossy(&up.stderr)
        );
        let answer = Command::new(&script).arg("pid").output().unwrap();
        let answer = String::from_utf8(answer.stdout).unwrap();
        let (init, state) = answer.trim().split_once(' ').unwrap();
        Lab {
            script,
            state: state.into(),
            init: init.parse().unwrap(),
        }
    }

    /// The host's pid of the lab's pid 1.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A path of the lab as the host sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/root/{}",
            self.init,
            inside.trim_start_matches('/')
        ))
    }

    /// A directory that both see: `/lab` inside.
    pub fn share(&self) -> PathBuf {
        self.state.join("share")
    }

    /// The API, straight from the host.
    pub fn http(&self) -> Client {
        Client::new(self.path("/run/berth/berth.sock"))
    }

    /// Runs a program inside as root.
    pub fn exec<S: AsRef<OsStr>>(&self, argv: &[S]) -> Output {
        self.run(argv, None, &[])
    }

    /// Runs a program inside as another user (`alice`: nobody; `bob`: in the group berth).
    pub fn exec_as<S: AsRef<OsStr>>(&self, user: &str, argv: &[S]) -> Output {
        self.run(argv, None, &[("LAB_USER", user)])
    }

    /// Runs a shell script inside and returns what it printed; it must succeed.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        self.exec(&["sh", "-ec", script]).ok()
    }

    /// The docker CLI inside, talking to the socket-activated agent.
    pub fn docker(&self, args: &[&str]) -> Output {
        self.docker_with(args, &[])
    }

    /// The same with something on its standard input.
    pub fn docker_with(&self, args: &[&str], input: &[u8]) -> Output {
        let argv: Vec<&str> = std::iter::once("docker")
            .chain(args.iter().copied())
            .collect();
        self.run(&argv, Some(input), &[])
    }

    /// Starts a program inside that goes on while the test does something else.
    pub fn spawn<S: AsRef<OsStr>>(&self, argv: &[S]) -> Background {
        let child = self
            .command(argv, &[])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Background {
            command: shown(argv),
            child: Some(child),
        }
    }

    fn run<S: AsRef<OsStr>>(
        &self,
        argv: &[S],
        input: Option<&[u8]>,
        environment: &[(&str, &str)],
    ) -> Output {
        let mut command = self.command(argv, environment);
        command.stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            let input = input.to_vec();
            // From a thread of its own: a program may answer before it has read everything, or never read it.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        Output::new(&[&shown(argv)], child.wait_with_output().unwrap())
    }

    fn command<S: AsRef<OsStr>>(&self, argv: &[S], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.script);
        command
            .arg("exec")
            .args(argv)
            .envs(environment.iter().copied());
        command
    }

    /// Loads an image unless the agent has it.
    pub fn ensure_image(&self, reference: &str, make: impl FnOnce() -> Vec<u8>) {
        if self.http().get(&format!("/images/{reference}/json")).status == 200 {
            return;
        }
        self.http()
            .post_bytes("/images/load", "application/x-tar", &make())
            .expect(200);
        self.http()
            .get(&format!("/images/{reference}/json"))
            .expect(200);
    }

    /// A property of a unit as systemd shows it.
    pub fn unit(&self, unit: &str, property: &str) -> String {
        self.exec(&["systemctl", "show", "--value", "-p", property, unit])
            .ok()
    }

    /// The host's pid of the agent while it runs.
    pub fn agent(&self) -> Option<u32> {
        match self.unit("berthd.service", "MainPID").parse() {
            Ok(0) | Err(_) => None,
            Ok(inner) => self.host_pid(inner),
        }
    }

    /// The host's number for a pid of the lab.
    pub fn host_pid(&self, inner: u32) -> Option<u32> {
        pid::on_host(self.init, inner)
    }

    /// Stops the agent (its sockets stay) and waits until it is gone.
    pub fn stop_agent(&self) {
        self.exec(&["systemctl", "stop", "berthd.service"]).ok();
        assert_eq!(self.agent(), None, "the agent is stopped");
    }

    /// Kills the agent as a crash would and waits until its process is gone.
    pub fn crash_agent(&self) {
        let pid = self.agent().expect("the agent runs");
        pid::kill(pid);
        assert!(
            pid::wait_end(pid, Duration::from_secs(10)),
            "the killed agent is gone"
        );
    }

    /// The scope of a container, by its full id.
    pub fn scope(id: &str) -> String {
        format!("berth-{}.scope", &id[..12])
    }

    /// The lab's cgroup tree as the host sees it.
    pub fn cgroups(&self) -> PathBuf {
        PathBuf::from(
            fs::read_to_string(self.state.join("cgroup"))
                .unwrap()
                .trim_end(),
        )
    }

    /// The agent's data root as the host sees it.
    pub fn data(&self) -> PathBuf {
        self.path("/var/lib/berth")
    }

    /// Removes every container: what a failed test left must not fail the next one.
    pub fn remove_all(&self) {
        let list = self.http().get("/containers/json?all=1").expect(200).json();
        for container in list.as_array().unwrap() {
            let id = container["Id"].as_str().unwrap();
            self.http().delete(&format!("/containers/{id}?force=1&v=1"));
        }
    }
}

/// A program that runs beside the test; killed when the test is done with it.
#[derive(Debug)]
pub struct Background {
    command: String,
    child: Option<Child>,
}

impl Background {
    /// The running process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("not finished yet")
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Output {
        let mut child = self.child.take().expect("not finished yet");
        drop(child.stdin.take());
        Output::new(&[&self.command], child.wait_with_output().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The name of the lab that this run uses.
pub fn name() -> String {
    env::var("LAB").unwrap_or_else(|_| "default".to_owned())
}

fn shown<S: AsRef<OsStr>>(argv: &[S]) -> String {
    argv.iter()
        .map(|arg| arg.as_ref().to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
