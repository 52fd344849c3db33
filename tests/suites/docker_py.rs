//! docker-py, the Python client, against the agent: a script does the work and asserts, this runs it.

use std::path::Path;
use std::process::Command;

use crate::support::clean;

#[test]
fn docker_py_works() {
    clean(|lab| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let cached = Command::new(here.join("docker-py.sh")).output().unwrap();
        assert!(
            cached.status.success(),
            "{}",
            String::from_utf8_lossy(&cached.stderr)
        );
        let library = String::from_utf8(cached.stdout).unwrap();
        let to = lab.share().join("docker-py");
        let copied = Command::new("cp")
            .args(["-rT", library.trim(), to.to_str().unwrap()])
            .status()
            .unwrap();
        assert!(copied.success());
        std::fs::copy(
            here.join("suites/docker_py.py"),
            lab.share().join("docker_py.py"),
        )
        .unwrap();
        let run = lab.exec(&[
            "env",
            "PYTHONPATH=/lab/docker-py",
            "python3",
            "/lab/docker_py.py",
        ]);
        let text = run.ok();
        assert!(text.ends_with("all passed"), "{}", run.describe());
    });
}
