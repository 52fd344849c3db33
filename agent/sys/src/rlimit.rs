//! Resource limits of a process.

use std::io;

use rustix::process::{Resource, Rlimit};

/// The names that Docker's `--ulimit` knows, with the kernel's numbers (getrlimit(2)).
const NAMES: [(&str, u32); 16] = [
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("as", 9),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

/// The number of a limit by its name (`nofile`).
pub fn number(name: &str) -> Option<u32> {
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

/// Sets a limit of the calling process; `u64::MAX` = unlimited. EINVAL for an unknown number or a
/// soft limit above the hard one, EPERM for a hard limit raised without CAP_SYS_RESOURCE.
pub fn set(number: u32, soft: u64, hard: u64) -> io::Result<()> {
    let value = |limit| (limit != u64::MAX).then_some(limit);
    let limit = Rlimit {
        current: value(soft),
        maximum: value(hard),
    };
    Ok(rustix::process::setrlimit(resource(number)?, limit)?)
}

/// A limit of the calling process: (soft, hard), `u64::MAX` = unlimited.
pub fn get(number: u32) -> io::Result<(u64, u64)> {
    let limit = rustix::process::getrlimit(resource(number)?);
    Ok((
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    ))
}

fn resource(number: u32) -> io::Result<Resource> {
    Ok(match number {
        0 => Resource::Cpu,
        1 => Resource::Fsize,
        2 => Resource::Data,
        3 => Resource::Stack,
        4 => Resource::Core,
        5 => Resource::Rss,
        6 => Resource::Nproc,
        7 => Resource::Nofile,
        8 => Resource::Memlock,
        9 => Resource::As,
        10 => Resource::Locks,
        11 => Resource::Sigpending,
        12 => Resource::Msgqueue,
        13 => Resource::Nice,
        14 => Resource::Rtprio,
        15 => Resource::Rttime,
        _ => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(number("nofile"), Some(libc::RLIMIT_NOFILE));
        assert_eq!(number("rttime"), Some(libc::RLIMIT_RTTIME));
        assert_eq!(number("NOFILE"), None);
        for (name, number) in NAMES {
            assert_eq!(resource(number).unwrap() as u32, number, "{name}");
        }
        assert!(resource(16).is_err());
    }

    #[test]
    fn limits_are_read_and_set() {
        let core = number("core").unwrap();
        let (soft, hard) = get(core).unwrap();
        set(core, 0, hard).unwrap();
        assert_eq!(get(core).unwrap(), (0, hard));
        set(core, soft, hard).unwrap();
        assert!(set(core, 2, 1).is_err());
    }
}
