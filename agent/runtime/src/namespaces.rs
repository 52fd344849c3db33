//! Docker's words for whose namespaces a container has, and what they mean for the kernel. Only the
//! documented words are taken: an unknown one is an error, never a default (security specification A.7).

use crate::plan::{Namespaces, Ns};
use crate::spec::{CgroupnsMode, IpcMode, NamespaceModes, NetMode, PidMode, SpecError, UtsMode};

impl IpcMode {
    /// `""`, `private`, `shareable`, `none`, `host`, `container:REF`.
    pub fn parse(word: &str) -> Result<Self, SpecError> {
        Ok(match word {
            "" | "private" => Self::Private,
            "shareable" => Self::Shareable,
            "none" => Self::None,
            "host" => Self::Host,
            _ => Self::Container(container(word).ok_or_else(|| wrong("IPC mode", word))?),
        })
    }
}

impl PidMode {
    /// `""`, `host`, `container:REF`.
    pub fn parse(word: &str) -> Result<Self, SpecError> {
        Ok(match word {
            "" => Self::Private,
            "host" => Self::Host,
            _ => Self::Container(container(word).ok_or_else(|| wrong("PID mode", word))?),
        })
    }
}

impl UtsMode {
    /// `""`, `host`.
    pub fn parse(word: &str) -> Result<Self, SpecError> {
        match word {
            "" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(wrong("UTS mode", word)),
        }
    }
}

impl CgroupnsMode {
    /// `""`, `private`, `host`.
    pub fn parse(word: &str) -> Result<Self, SpecError> {
        match word {
            "" | "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(wrong("cgroup namespace mode", word)),
        }
    }
}

impl NamespaceModes {
    /// The modes of a request; `net` is the engine's to say. `userns` may be empty or `host`: user
    /// namespaces are not remapped yet, so both mean the host's.
    pub fn parse(
        net: NetMode,
        ipc: &str,
        pid: &str,
        uts: &str,
        cgroupns: &str,
        userns: &str,
    ) -> Result<Self, SpecError> {
        if !matches!(userns, "" | "host") {
            return Err(wrong("USER mode", userns));
        }
        Ok(Self {
            net,
            ipc: IpcMode::parse(ipc)?,
            pid: PidMode::parse(pid)?,
            uts: UtsMode::parse(uts)?,
            cgroup: CgroupnsMode::parse(cgroupns)?,
        })
    }

    /// Refuses a host name that the *request* names where the container has the host's.
    pub fn check_hostname(&self, hostname: &str, domainname: &str) -> Result<(), SpecError> {
        if self.uts == UtsMode::Host && !(hostname.is_empty() && domainname.is_empty()) {
            return Err(SpecError::invalid(
                "conflicting options: hostname and the UTS mode",
            ));
        }
        Ok(())
    }

    /// The kernel's view.
    pub(crate) fn to_plan(&self) -> Namespaces {
        Namespaces {
            net: match self.net {
                NetMode::Host => Ns::Host,
                NetMode::Joined => Ns::Join,
                NetMode::New => Ns::New,
            },
            pid: match self.pid {
                PidMode::Private => Ns::New,
                PidMode::Host => Ns::Host,
                PidMode::Container(_) => Ns::Join,
            },
            ipc: match self.ipc {
                IpcMode::Private | IpcMode::Shareable | IpcMode::None => Ns::New,
                IpcMode::Host => Ns::Host,
                IpcMode::Container(_) => Ns::Join,
            },
            uts: match self.uts {
                UtsMode::Private => Ns::New,
                UtsMode::Host => Ns::Host,
            },
            cgroup: match self.cgroup {
                CgroupnsMode::Private => Ns::New,
                CgroupnsMode::Host => Ns::Host,
            },
        }
    }
}

/// The name behind `container:`.
fn container(word: &str) -> Option<String> {
    word.strip_prefix("container:")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

fn wrong(what: &str, word: &str) -> SpecError {
    SpecError::invalid(format!("invalid {what}: {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        ipc: &str,
        pid: &str,
        uts: &str,
        cgroupns: &str,
        userns: &str,
    ) -> Result<NamespaceModes, SpecError> {
        NamespaceModes::parse(NetMode::Joined, ipc, pid, uts, cgroupns, userns)
    }

    #[test]
    fn documented_words() {
        let own = parse("", "", "", "", "").expect("valid");
        assert_eq!(
            own.to_plan(),
            Namespaces {
                net: Ns::Join,
                pid: Ns::New,
                ipc: Ns::New,
                uts: Ns::New,
                cgroup: Ns::New
            }
        );
        let host = parse("host", "host", "host", "host", "host").expect("valid");
        assert_eq!(
            host.to_plan(),
            Namespaces {
                net: Ns::Join,
                pid: Ns::Host,
                ipc: Ns::Host,
                uts: Ns::Host,
                cgroup: Ns::Host
            }
        );
        let joined = parse("container:a", "container:b", "", "private", "").expect("valid");
        assert_eq!(joined.ipc, IpcMode::Container("a".to_owned()));
        assert_eq!(
            (joined.to_plan().ipc, joined.to_plan().pid),
            (Ns::Join, Ns::Join)
        );
        assert_eq!(
            parse("none", "", "", "", "").expect("valid").ipc,
            IpcMode::None
        );
        assert_eq!(
            parse("shareable", "", "", "", "").expect("valid").ipc,
            IpcMode::Shareable
        );
    }

    #[test]
    fn other_words_are_refused_by_name() {
        assert_eq!(
            parse("shared", "", "", "", ""),
            Err(SpecError::invalid("invalid IPC mode: shared"))
        );
        assert_eq!(
            parse("", "private", "", "", ""),
            Err(SpecError::invalid("invalid PID mode: private"))
        );
        assert_eq!(
            parse("", "container:", "", "", ""),
            Err(SpecError::invalid("invalid PID mode: container:"))
        );
        assert_eq!(
            parse("", "", "Host", "", ""),
            Err(SpecError::invalid("invalid UTS mode: Host"))
        );
        assert_eq!(
            parse("", "", "", "x", ""),
            Err(SpecError::invalid("invalid cgroup namespace mode: x"))
        );
        assert_eq!(
            parse("", "", "", "", "nobody"),
            Err(SpecError::invalid("invalid USER mode: nobody"))
        );
    }

    #[test]
    fn a_host_name_needs_a_namespace() {
        let host = parse("", "", "host", "", "").expect("valid");
        assert!(host.check_hostname("x", "").is_err());
        assert!(host.check_hostname("", "").is_ok());
        assert!(
            parse("", "", "", "", "")
                .expect("valid")
                .check_hostname("x", "y")
                .is_ok()
        );
    }
}
