//! Starting a scope, and making sure that it is one: what can go wrong between asking and having.

use std::time::Duration;

use crate::bus::{self, Link};
use crate::error::{Error, Result};
use crate::manager::{
    MAX_UNKNOWN, Manager, RETURN_LIMIT, check_name, job_end, job_path, refused, refused_property,
};
use crate::scope::{self, Property, ScopeSettings, ScopeStarted};

/// A start takes about two milliseconds; runc learnt that one second is too short on busy hosts.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How one attempt to start a scope ended.
enum Attempt {
    /// The job is done.
    Done,
    /// Try again with what was learnt.
    Again,
    /// The manager went away in between: the unit may exist or not.
    Lost(String),
}

impl Manager {
    /// Puts process `pid` into a new scope and checks that it is there.
    ///
    /// On an error the process may be anywhere: the caller ends it.
    pub async fn start_scope(
        &self,
        unit: &str,
        pid: u32,
        settings: &ScopeSettings,
    ) -> Result<ScopeStarted> {
        check_name(unit)?;
        let work = self.start_until_known(unit, pid, settings);
        match tokio::time::timeout(START_LIMIT, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                unit: unit.to_owned(),
                seconds: START_LIMIT.as_secs(),
            }),
        }
    }

    async fn start_until_known(
        &self,
        unit: &str,
        pid: u32,
        settings: &ScopeSettings,
    ) -> Result<ScopeStarted> {
        let mut was_lost = false;
        let mut clashes = 0;
        let mut learnt = 0;
        loop {
            let (properties, discarded) = settings.properties(pid, |name| self.is_unknown(name));
            let link = self.link().await?;
            let attempt = match self.attempt(&link, unit, pid, &properties).await {
                Err(Error::UnitExists { .. }) if clashes == 0 => {
                    // A failed unit of an earlier start keeps its name until it is reset.
                    clashes = 1;
                    self.reset_failed(unit).await?;
                    continue;
                }
                Err(Error::UnitExists { .. }) if clashes == 1 => {
                    // The scope of a run that has just ended: its monitor, or the news that it is
                    // gone, is still on its way. The job ends when the unit has.
                    clashes = 2;
                    self.stop_unit(unit).await?;
                    continue;
                }
                other => other?,
            };
            match attempt {
                Attempt::Done => {}
                Attempt::Again if learnt < MAX_UNKNOWN => {
                    learnt += 1;
                    continue;
                }
                Attempt::Again => {
                    return Err(Error::MissingProperty {
                        unit: unit.to_owned(),
                        property: "(too many)".to_owned(),
                    });
                }
                Attempt::Lost(error) => {
                    tracing::info!(unit, error, "the service manager went away during a start");
                    link.wait_for_manager(RETURN_LIMIT).await;
                    let there = is_inside(&(self.inner.locate)(pid)?, unit);
                    if !there && !was_lost {
                        was_lost = true;
                        continue;
                    }
                }
            }
            return verified(unit, pid, (self.inner.locate)(pid)?, discarded);
        }
    }

    /// One `StartTransientUnit`, and its job to the end.
    async fn attempt(
        &self,
        link: &Link,
        unit: &str,
        pid: u32,
        properties: &[Property],
    ) -> Result<Attempt> {
        const CALL: &str = "StartTransientUnit";
        let auxiliary: &[(&str, &[Property])] = &[];
        // Before the call: the job may end before its path has been read.
        let mut jobs = link.jobs();
        let reply = match link
            .call(CALL, &(unit, "fail", properties, auxiliary))
            .await
        {
            Ok(reply) => reply,
            Err(error) if bus::is_away(&error) => return Ok(Attempt::Lost(error.to_string())),
            Err(error) => return self.judge(unit, pid, error),
        };
        let job = job_path(CALL, &reply)?;
        let manager = reply.header().sender().map(|name| name.to_owned());
        match job_end(link, &mut jobs, &job, manager).await {
            Some(result) if result == "done" => Ok(Attempt::Done),
            Some(result) => Err(Error::JobFailed {
                unit: unit.to_owned(),
                result,
            }),
            None => Ok(Attempt::Lost(
                "the connection ended before the job".to_owned(),
            )),
        }
    }

    /// What a refusal means.
    fn judge(&self, unit: &str, pid: u32, error: zbus::Error) -> Result<Attempt> {
        let unit = unit.to_owned();
        let Some((name, text)) = bus::name_and_text(&error) else {
            return Err(refused("StartTransientUnit", &unit, error));
        };
        match name.as_str() {
            "org.freedesktop.systemd1.UnitExists" => Err(Error::UnitExists { unit }),
            "org.freedesktop.DBus.Error.UnixProcessIdUnknown"
            | "org.freedesktop.systemd1.NoSuchProcess" => Err(Error::ProcessGone { unit, pid }),
            "org.freedesktop.DBus.Error.PropertyReadOnly"
            | "org.freedesktop.DBus.Error.UnknownProperty" => match refused_property(&text) {
                Some(property) if scope::is_required(property) => Err(Error::MissingProperty {
                    unit,
                    property: property.to_owned(),
                }),
                Some(property) if self.learn(property) => Ok(Attempt::Again),
                _ => Err(refused("StartTransientUnit", &unit, error)),
            },
            _ => Err(refused("StartTransientUnit", &unit, error)),
        }
    }
}

/// `done` is not enough: another caller may have taken the process into its own unit, and limits
/// would then hold for a stranger.
fn verified(
    unit: &str,
    pid: u32,
    control_group: String,
    discarded: Vec<String>,
) -> Result<ScopeStarted> {
    if control_group.is_empty() {
        return Err(Error::ProcessGone {
            unit: unit.to_owned(),
            pid,
        });
    }
    if !is_inside(&control_group, unit) {
        return Err(Error::ScopeMismatch {
            unit: unit.to_owned(),
            pid,
            seen: control_group,
        });
    }
    Ok(ScopeStarted {
        control_group,
        discarded,
    })
}

/// A process's cgroup below the unified hierarchy's root; empty when the process is gone.
pub(super) fn control_group_of(pid: u32) -> Result<String> {
    match berth_sys::proc::cgroup_of(pid) {
        Ok(path) => Ok(path),
        Err(error) if is_gone(&error) => Ok(String::new()),
        Err(error) => Err(Error::Local {
            what: format!("cannot read the control group of process {pid}"),
            source: error,
        }),
    }
}

/// ENOENT before, ESRCH after the file was opened.
fn is_gone(error: &std::io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

/// Whether a cgroup is a unit's own: the last part of the path is the unit's name.
fn is_inside(control_group: &str, unit: &str) -> bool {
    control_group.rsplit('/').next() == Some(unit)
}
