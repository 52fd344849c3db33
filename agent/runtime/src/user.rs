//! Who the container's program is (security specification B.11): `user[:group]` and `--group-add`
//! looked up in the container's own passwd and group files, by our own parser on a descriptor below
//! the root. NSS, the host's files and the container's code are never asked.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use berth_sys::path::{OFlags, open_in_root, reopen};
use thiserror::Error;

use crate::spec::SpecError;

/// Longest file read, in bytes: room for some 20,000 users.
const MAX_FILE: u64 = 1 << 20;

/// Longest line taken seriously, in bytes.
const MAX_LINE: usize = 64 << 10;

/// The highest id: 2³²−1 means "unchanged" to the kernel.
const MAX_ID: u32 = u32::MAX - 1;

/// What the kernel takes in setgroups(2).
const MAX_GROUPS: usize = 65536;

/// Why a user cannot be resolved.
#[derive(Debug, Error)]
pub enum UserError {
    /// The request names something that is not there or is no id.
    #[error("{0}")]
    Invalid(String),
    /// The container's file cannot be used.
    #[error("cannot read {path} of the container: {source}")]
    File {
        path: &'static str,
        #[source]
        source: io::Error,
    },
}

/// The identity of the container's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, ascending; always contains `gid`.
    pub groups: Vec<u32>,
    /// From passwd; `/` without an entry.
    pub home: String,
}

impl Ids {
    /// Root without further groups.
    pub fn root() -> Self {
        Self {
            uid: 0,
            gid: 0,
            groups: vec![0],
            home: "/root".to_owned(),
        }
    }
}

/// Resolves `user` (`user[:group]`, names or numbers, empty = 0) and the added groups in the tree below `root`.
pub fn resolve(root: BorrowedFd<'_>, user: &str, group_add: &[String]) -> Result<Ids, UserError> {
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    lookup(
        user,
        group_add,
        passwd.as_deref().unwrap_or_default(),
        group.as_deref().unwrap_or_default(),
    )
}

/// Checks what can be checked without the container's files: numbers.
pub(crate) fn check(user: &str, group_add: &[String]) -> Result<(), SpecError> {
    let (user, group) = split(user);
    for id in [Some(user), group]
        .into_iter()
        .flatten()
        .chain(group_add.iter().map(String::as_str))
    {
        number(id).map_err(|error| SpecError::invalid(error.to_string()))?;
    }
    Ok(())
}

/// The file's text; None when there is none. Regular files only, and nothing else is even opened: a
/// FIFO would block, a device act. A link at the end is refused, images have no reason for one.
fn read(root: BorrowedFd<'_>, path: &'static str) -> Result<Option<String>, UserError> {
    let fail = |source| UserError::File { path, source };
    let fd = match open_in_root(root, path, OFlags::PATH | OFlags::NOFOLLOW, 0) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if berth_sys::at::stat(&fd).map_err(fail)?.kind != berth_sys::at::Kind::File {
        return Err(fail(io::Error::other("it is no regular file")));
    }
    let file = std::fs::File::from(reopen(&fd, OFlags::RDONLY).map_err(fail)?);
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(fail(io::Error::other("it is larger than 1 MiB")));
    }
    // Old names may be in any encoding; the lines of others must still be found.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn split(user: &str) -> (&str, Option<&str>) {
    match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    }
}

/// Digits are always a number, as with docker; what looks like one with a sign is refused.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let out_of_range = || UserError::Invalid(format!("uids and gids must be in range 0-{MAX_ID}"));
    if digits(text) {
        let id = text
            .parse()
            .ok()
            .filter(|id| *id <= MAX_ID)
            .ok_or_else(out_of_range)?;
        return Ok(Some(id));
    }
    match text.strip_prefix(['-', '+']) {
        Some(rest) if digits(rest) => Err(out_of_range()),
        _ => Ok(None),
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| line.len() <= MAX_LINE && !line.starts_with('#'))
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        fields.next()?;
        let uid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
        let gid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
        fields.next();
        let home = fields.next().unwrap_or_default();
        Some(User {
            name,
            uid,
            gid,
            home,
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        fields.next()?;
        let gid = fields.next()?.parse().ok().filter(|id| *id <= MAX_ID)?;
        Some(Group {
            name,
            gid,
            members: fields.next().unwrap_or_default(),
        })
    })
}

fn group_id(name: &str, group: &str) -> Result<u32, UserError> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    groups(group)
        .find(|entry| entry.name == name)
        .map(|entry| entry.gid)
        .ok_or_else(|| {
            UserError::Invalid(format!(
                "unable to find group {name}: no matching entries in group file"
            ))
        })
}

fn lookup(user: &str, group_add: &[String], passwd: &str, group: &str) -> Result<Ids, UserError> {
    let (wanted_user, wanted_group) = split(user);
    let wanted_uid = if wanted_user.is_empty() {
        Some(0)
    } else {
        number(wanted_user)?
    };
    let entry = users(passwd).find(|entry| match wanted_uid {
        Some(uid) => entry.uid == uid,
        None => entry.name == wanted_user,
    });
    let uid = match (&entry, wanted_uid) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        // Never root instead of somebody unknown.
        (None, None) => {
            return Err(UserError::Invalid(format!(
                "unable to find user {wanted_user}: no matching entries in passwd file"
            )));
        }
    };
    let mut all = BTreeSet::new();
    let gid = match wanted_group {
        Some(name) => group_id(name, group)?,
        None => {
            if let Some(entry) = &entry {
                let member = |found: &Group<'_>| {
                    found
                        .members
                        .split(',')
                        .any(|name| name.trim() == entry.name)
                };
                all.extend(groups(group).filter(member).map(|found| found.gid));
            }
            entry.as_ref().map_or(0, |entry| entry.gid)
        }
    };
    // The primary group is always among the supplementary ones: otherwise a program that changes its
    // primary group would escape rules that deny that group (CVE-2022-36109).
    all.insert(gid);
    for name in group_add {
        all.insert(group_id(name, group)?);
    }
    if all.len() > MAX_GROUPS {
        return Err(UserError::Invalid(format!("more than {MAX_GROUPS} groups")));
    }
    let home = entry
        .map(|entry| entry.home)
        .filter(|home| home.starts_with('/'));
    Ok(Ids {
        uid,
        gid,
        groups: all.into_iter().collect(),
        home: home.unwrap_or("/").to_owned(),
    })
}

#[cfg(test)]
mod tests;
