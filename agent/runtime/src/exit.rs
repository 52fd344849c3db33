//! The exit record: what the monitor writes when a container has ended, and the agent reads
//! whenever it comes back. One fixed-size record in an otherwise empty file; a torn or foreign
//! one is an error, an empty file means "not ended, or nobody saw it".

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use crate::wire::{Reader, Wire, WireError, wire_struct};

/// Size of a record in bytes.
pub const EXIT_RECORD_LEN: usize = 96;

const MAGIC: [u8; 4] = *b"BEXR";
const VERSION: u16 = 1;

/// How and when a container's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitRecord {
    /// As wait(2) gives it.
    pub wait_status: i32,
    /// Host pid of the container's first process.
    pub pid: u32,
    /// See the `FLAG_` constants.
    pub flags: u32,
    /// Nanoseconds since the epoch, the monitor's clock.
    pub started_at: i64,
    pub finished_at: i64,
    /// `oom_kill` of the payload's memory.events; 0 where there is no memory controller.
    pub oom_kills: u64,
    /// Processor time of the payload in microseconds; 0 = unknown.
    pub cpu_usec: u64,
    /// Highest memory use of the payload in bytes; 0 = unknown.
    pub memory_peak: u64,
    /// The boot during which it ran (16 bytes of /proc/sys/kernel/random/boot_id).
    pub boot_id: [u8; 16],
}
wire_struct!(ExitRecord {
    wait_status,
    pid,
    flags,
    started_at,
    finished_at,
    oom_kills,
    cpu_usec,
    memory_peak,
    boot_id
});

impl ExitRecord {
    /// A stop or kill asked for through the agent.
    pub const FLAG_STOPPED_BY_USER: u32 = 1;
    /// A stop of the scope, asked by the service manager.
    pub const FLAG_STOPPED_BY_UNIT: u32 = 2;
    /// The grace period ended and the payload was killed.
    pub const FLAG_KILLED_AFTER_TIMEOUT: u32 = 4;
    /// The kernel killed a process of the payload for want of memory.
    pub const FLAG_OOM_KILLED: u32 = 8;
    /// The agent ended it for its own sake (abandoned start, restart): no user's wish.
    pub const FLAG_STOPPED_BY_AGENT: u32 = 16;

    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Docker's exit code: the status, or 128 + signal.
    pub fn exit_code(&self) -> i32 {
        exit_code(self.wait_status)
    }

    /// The signal that ended it, if one did.
    pub fn signal(&self) -> Option<i32> {
        let signal = self.wait_status & 0x7f;
        (signal != 0 && signal != 0x7f).then_some(signal)
    }

    pub fn to_bytes(&self) -> [u8; EXIT_RECORD_LEN] {
        let mut body = Vec::with_capacity(EXIT_RECORD_LEN);
        MAGIC.put(&mut body);
        VERSION.put(&mut body);
        0u16.put(&mut body);
        self.put(&mut body);
        let mut bytes = [0; EXIT_RECORD_LEN];
        bytes[..body.len()].copy_from_slice(&body);
        let sum = checksum(&bytes[..EXIT_RECORD_LEN - 8]);
        bytes[EXIT_RECORD_LEN - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() < EXIT_RECORD_LEN {
            return Err(WireError::Truncated);
        }
        if bytes.len() > EXIT_RECORD_LEN {
            return Err(WireError::Trailing(bytes.len() - EXIT_RECORD_LEN));
        }
        let (body, sum) = bytes.split_at(EXIT_RECORD_LEN - 8);
        let mut input = Reader::new(body);
        if <[u8; 4]>::get(&mut input)? != MAGIC {
            return Err(WireError::Inconsistent("it is no exit record"));
        }
        if sum != checksum(body).to_le_bytes() {
            return Err(WireError::Inconsistent("the exit record is torn"));
        }
        let version = u16::get(&mut input)?;
        if version != VERSION {
            return Err(WireError::Version {
                found: version.into(),
                ours: VERSION.into(),
            });
        }
        u16::get(&mut input)?;
        Self::get(&mut input)
    }

    /// Writes the record at the start of the file in one call.
    pub fn write_to(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let file = File::from(file.try_clone_to_owned()?);
        file.write_all_at(&self.to_bytes(), 0)
    }

    /// Reads the record; `None` when the file is empty.
    pub fn read_from(file: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let file = File::from(file.try_clone_to_owned()?);
        let mut bytes = [0; EXIT_RECORD_LEN + 1];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok(None);
        }
        Self::from_bytes(&bytes[..filled])
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Docker's exit code of a raw wait status: the status, or 128 + signal.
pub fn exit_code(wait_status: i32) -> i32 {
    let signal = wait_status & 0x7f;
    if signal == 0 {
        (wait_status >> 8) & 0xff
    } else {
        128 + signal
    }
}

/// FNV-1a: enough to tell a whole record from a torn one; it is no defence against forgery, the
/// file lies in a directory of root's.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn record() -> ExitRecord {
        ExitRecord {
            wait_status: 42 << 8,
            pid: 4711,
            flags: ExitRecord::FLAG_STOPPED_BY_UNIT | ExitRecord::FLAG_OOM_KILLED,
            started_at: 1,
            finished_at: i64::MAX,
            oom_kills: 3,
            cpu_usec: 17,
            memory_peak: 1 << 40,
            boot_id: *b"0123456789abcdef",
        }
    }

    #[test]
    fn record_survives_a_file() {
        let file = tempfile::tempfile().expect("temporary file");
        assert_eq!(ExitRecord::read_from(file.as_fd()).expect("empty"), None);
        record().write_to(file.as_fd()).expect("write");
        assert_eq!(
            ExitRecord::read_from(file.as_fd()).expect("read"),
            Some(record())
        );
    }

    #[test]
    fn torn_long_and_foreign_records_are_errors() {
        let bytes = record().to_bytes();
        for cut in 1..bytes.len() {
            assert!(ExitRecord::from_bytes(&bytes[..cut]).is_err());
        }
        for position in 0..bytes.len() {
            let mut changed = bytes;
            changed[position] ^= 0x40;
            assert!(ExitRecord::from_bytes(&changed).is_err(), "byte {position}");
        }
        let mut long = bytes.to_vec();
        long.push(0);
        assert!(ExitRecord::from_bytes(&long).is_err());
    }

    #[test]
    fn codes() {
        assert_eq!(exit_code(10752), 42);
        assert_eq!(exit_code(9), 137);
        assert_eq!(exit_code(0x80 | 11), 139);
        assert_eq!(exit_code(0), 0);
    }
}
