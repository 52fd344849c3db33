//! What a program that a test ran left: status and output, with the checks that tests make of them.

use std::os::unix::process::ExitStatusExt;
use std::process;

/// A finished program.
#[derive(Debug)]
pub struct Output {
    command: String,
    inner: process::Output,
}

impl Output {
    pub(crate) fn new(argv: &[&str], inner: process::Output) -> Self {
        Self {
            command: argv.join(" "),
            inner,
        }
    }

    /// The exit code, or 128 + the signal that ended the program.
    pub fn code(&self) -> i32 {
        let status = self.inner.status;
        status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(-1)
    }

    /// Standard output as text, without blanks at its end.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.inner.stdout)
            .trim_end()
            .to_owned()
    }

    pub fn stdout_bytes(&self) -> &[u8] {
        &self.inner.stdout
    }

    /// Standard error as text, without blanks at its end.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.inner.stderr)
            .trim_end()
            .to_owned()
    }

    /// Standard output of a program that must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> String {
        assert!(self.inner.status.success(), "{}", self.describe());
        self.stdout()
    }

    /// Standard error of a program that must have failed with this code.
    #[track_caller]
    pub fn fails(&self, code: i32) -> String {
        assert_eq!(self.code(), code, "{}", self.describe());
        self.stderr()
    }

    /// The whole story, for a failed assertion.
    pub fn describe(&self) -> String {
        format!(
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code(),
            self.stdout(),
            self.stderr()
        )
    }
}
