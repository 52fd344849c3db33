//! Loading a seccomp filter that somebody else compiled.

use std::io;

const INSTRUCTION: usize = size_of::<libc::sock_filter>();

/// The kernel's bound on instructions of one program (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// Installs `program`, an array of `struct sock_filter` in host byte order, for the calling thread
/// and all it starts. `flags` are SECCOMP_FILTER_FLAG_*.
///
/// Needs CAP_SYS_ADMIN or no_new_privs (EACCES).
pub fn load(program: &[u8], flags: u32) -> io::Result<()> {
    let filters = decode(program)?;
    let program = libc::sock_fprog {
        len: u16::try_from(filters.len()).map_err(io::Error::other)?,
        // The kernel only reads; the field is mutable for history's sake.
        filter: filters.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `filters`, which outlives the call, and its length is theirs.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            std::ptr::from_ref(&program),
        )
    };
    match crate::raw::check(result)? {
        0 => Ok(()),
        // With the TSYNC flag: the number of a thread that could not be brought along.
        _ => Err(io::Error::other("a thread could not take the filter")),
    }
}

/// Whether a byte string can be a program at all.
pub fn check(program: &[u8]) -> io::Result<()> {
    decode(program).map(drop)
}

fn decode(program: &[u8]) -> io::Result<Vec<libc::sock_filter>> {
    let count = program.len() / INSTRUCTION;
    if !program.len().is_multiple_of(INSTRUCTION) || count == 0 || count > MAX_INSTRUCTIONS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a seccomp program",
        ));
    }
    let instructions = program
        .chunks_exact(INSTRUCTION)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        });
    Ok(instructions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(instructions: &[(u16, u8, u8, u32)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (code, jt, jf, k) in instructions {
            bytes.extend(code.to_ne_bytes());
            bytes.extend([*jt, *jf]);
            bytes.extend(k.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn only_whole_programs_are_taken() {
        for length in [0, 7, 9, 8 * (MAX_INSTRUCTIONS + 1)] {
            assert!(check(&vec![0; length]).is_err(), "{length}");
        }
        assert!(check(&[0; 8]).is_ok());
    }

    #[test]
    fn a_filter_bites_in_its_thread_only() {
        // Load the call's number; getppid answers EPERM, everything else is allowed.
        let number = u32::try_from(libc::SYS_getppid).unwrap();
        let filter = program(&[
            (0x20, 0, 0, 0),
            (0x15, 0, 1, number),
            (0x06, 0, 0, 0x0005_0001),
            (0x06, 0, 0, 0x7fff_0000),
        ]);
        let inside = crate::ns::in_thread(|| {
            crate::cred::no_new_privs().unwrap();
            load(&filter, 0).unwrap();
            // SAFETY: getppid has no argument.
            unsafe { libc::syscall(libc::SYS_getppid) }
        });
        assert_eq!(inside.unwrap(), -1);
        assert!(rustix::process::getppid().is_some());
    }
}
