//! The device fence of a cgroup: one eBPF program of type CGROUP_DEVICE.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Bytes of one eBPF instruction.
pub const INSTRUCTION: usize = 8;

/// The most instructions that we load; a device list becomes far fewer.
const MAX_INSTRUCTIONS: usize = 4096;

/// How many programs are looked for on one cgroup. The kernel's own bound is 64.
const MAX_PROGRAMS: usize = 64;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

/// `union bpf_attr` for BPF_PROG_LOAD, up to `expected_attach_type`.
#[repr(C)]
#[derive(Default)]
struct LoadArgs {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct AttachArgs {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// `union bpf_attr` for BPF_PROG_QUERY (with the padding that the kernel's layout has).
#[repr(C)]
#[derive(Default)]
struct QueryArgs {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

/// `union bpf_attr` for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Default)]
struct IdArgs {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

fn bpf<T>(command: libc::c_int, args: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the structure is the layout that the command expects (each is only built in this
    // file), outlives the call, and its size is passed; pointers in it point to live buffers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(args),
            size_of::<T>(),
        )
    };
    crate::raw::check(result)
}

fn owned(number: libc::c_long) -> io::Result<OwnedFd> {
    let number = libc::c_int::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec, as bpf(2) always does) and
    // nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn word(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// Makes `insns` (8 bytes each, host byte order) the one device program of a cgroup.
///
/// A program that is attached there is replaced in one step, so that no moment exists in which old
/// and new are both asked or neither is; more than one (not ours) are all detached after the new
/// one is in force. Programs of parent cgroups stay and can only deny more.
pub fn attach(cgroup: BorrowedFd<'_>, insns: &[u8]) -> io::Result<()> {
    let program = load(insns)?;
    let old = attached(cgroup)?;
    let mut args = AttachArgs {
        target_fd: word(cgroup)?,
        attach_bpf_fd: word(std::os::fd::AsFd::as_fd(&program))?,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
        replace_bpf_fd: 0,
    };
    if let [one] = old.as_slice() {
        args.attach_flags |= BPF_F_REPLACE;
        args.replace_bpf_fd = word(std::os::fd::AsFd::as_fd(one))?;
        return bpf(BPF_PROG_ATTACH, &mut args).map(drop);
    }
    bpf(BPF_PROG_ATTACH, &mut args)?;
    for program in &old {
        let mut args = AttachArgs {
            target_fd: word(cgroup)?,
            attach_bpf_fd: word(std::os::fd::AsFd::as_fd(program))?,
            attach_type: BPF_CGROUP_DEVICE,
            ..AttachArgs::default()
        };
        bpf(BPF_PROG_DETACH, &mut args)?;
    }
    Ok(())
}

/// How many device programs are attached to a cgroup itself (not to its parents).
pub fn count(cgroup: BorrowedFd<'_>) -> io::Result<usize> {
    Ok(attached(cgroup)?.len())
}

fn load(insns: &[u8]) -> io::Result<OwnedFd> {
    let count = insns.len() / INSTRUCTION;
    if !insns.len().is_multiple_of(INSTRUCTION) || count == 0 || count > MAX_INSTRUCTIONS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a device program",
        ));
    }
    // Copied into words, because the kernel reads instructions as aligned structures.
    let words: Vec<u64> = insns
        .chunks_exact(INSTRUCTION)
        .map(|bytes| {
            let mut word = [0; INSTRUCTION];
            word.copy_from_slice(bytes);
            u64::from_ne_bytes(word)
        })
        .collect();
    let mut args = LoadArgs {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(count).map_err(io::Error::other)?,
        insns: words.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        prog_name: *b"berth_devices\0\0\0",
        ..LoadArgs::default()
    };
    owned(bpf(BPF_PROG_LOAD, &mut args)?)
}

fn attached(cgroup: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut args = QueryArgs {
        target_fd: word(cgroup)?,
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        ..QueryArgs::default()
    };
    bpf(BPF_PROG_QUERY, &mut args)?;
    ids.iter()
        .take(args.prog_cnt as usize)
        .map(|id| {
            let mut args = IdArgs {
                prog_id: *id,
                ..IdArgs::default()
            };
            owned(bpf(BPF_PROG_GET_FD_BY_ID, &mut args)?)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// `r0 = value; exit`
    fn constant(value: u32) -> Vec<u8> {
        let mut bytes = vec![0xb7, 0, 0, 0];
        bytes.extend(value.to_ne_bytes());
        bytes.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn only_whole_programs_are_loaded() {
        for length in [0, 7, 8 * (MAX_INSTRUCTIONS + 1)] {
            let error = load(&vec![0; length]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_program_replaces_the_one_before() {
        let Some((parent, name)) = crate::cgroup::tests::scratch("devfilter") else {
            return;
        };
        let group = parent.create_child(&name).unwrap();
        attach(group.as_fd(), &constant(1)).unwrap();
        attach(group.as_fd(), &constant(0)).unwrap();
        assert_eq!(count(group.as_fd()).unwrap(), 1);
        parent.remove_child(&name).unwrap();
    }
}
