use proptest::prelude::*;

use super::*;
use crate::testing::{Entry, Tar};

fn members(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>> {
    let mut reader = TarReader::new(bytes, Dropped, "test");
    let mut all = Vec::new();
    while let Some(member) = reader.next_member()? {
        let mut contents = Vec::new();
        reader.contents(u64::MAX, &mut |bytes| {
            contents.extend_from_slice(bytes);
            Ok(())
        })?;
        all.push((member, contents));
    }
    reader.finish()?;
    Ok(all)
}

fn refused(bytes: &[u8], part: &str) {
    let error = members(bytes).expect_err(part).to_string();
    assert!(error.contains(part), "{error:?} does not say {part:?}");
}

/// Keeps what is not contents.
#[derive(Default)]
struct Kept(Vec<u8>);

impl Verbatim for Kept {
    fn verbatim(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[test]
fn plain_members() {
    let long = "d/".repeat(80) + "f";
    let tar = Tar::new()
        .dir("d/")
        .file("d/f", b"hello")
        .symlink("l", "d/f")
        .hardlink("h", "d/f")
        .file(&long, b"x")
        .end();
    let all = members(&tar).unwrap();
    let kinds: Vec<_> = all.iter().map(|(member, _)| member.kind).collect();
    use MemberKind::{Dir, File, HardLink, Symlink};
    assert_eq!(kinds, [Dir, File, Symlink, HardLink, File]);
    assert_eq!(
        (&all[1].0.name[..], all[1].0.size, &all[1].1[..]),
        (&b"d/f"[..], 5, &b"hello"[..])
    );
    assert_eq!(all[2].0.link, b"d/f");
    assert_eq!(all[4].0.name, long.as_bytes());
    assert_eq!(
        all[1].0.mtime,
        FileTime {
            secs: 1_700_000_000,
            nanos: 0
        }
    );
}

#[test]
fn extended_headers_count() {
    let tar = Tar::new()
        .pax("path", b"real name")
        .pax("size", b"3")
        .pax("uid", b"3000000")
        .pax("mtime", b"1.5")
        .pax("SCHILY.xattr.user.a", b"\n\0x")
        .add(
            Entry {
                name: b"other",
                size: Some(0),
                ..Entry::default()
            },
            b"abc",
        )
        .file("next", b"")
        .end();
    let all = members(&tar).unwrap();
    let (member, contents) = &all[0];
    assert_eq!(
        (&member.name[..], &contents[..], member.uid),
        (&b"real name"[..], &b"abc"[..], 3_000_000)
    );
    assert_eq!(
        member.mtime,
        FileTime {
            secs: 1,
            nanos: 500_000_000
        }
    );
    assert_eq!(member.xattrs, [(b"user.a".to_vec(), b"\n\0x".to_vec())]);
    assert_eq!(all[1].0.name, b"next");
    assert!(all[1].0.xattrs.is_empty());
}

#[test]
fn ambiguous_and_broken_archives() {
    refused(b"this is no archive", "within a block");
    refused(&[b'x'; 512], "not a tar archive");
    let good = Tar::new().file("f", &[7; 1000]).end();
    refused(&good[..512 + 500], "within a member");
    assert_eq!(
        members(&good[..512 + 1000]).unwrap().len(),
        1,
        "a missing last padding is harmless"
    );
    assert_eq!(
        members(&good[..512 + 1024]).unwrap().len(),
        1,
        "a missing end is harmless"
    );
    let mut damaged = good.clone();
    damaged[0] ^= 1;
    refused(&damaged, "checksum");
    let mut lone = vec![0; 512];
    lone.extend(&good);
    refused(&lone, "lone block");
    let twice = Tar::new()
        .add(
            Entry {
                name: b"x",
                flag: b'x',
                ..Entry::default()
            },
            b"",
        )
        .add(
            Entry {
                name: b"x",
                flag: b'x',
                ..Entry::default()
            },
            b"",
        )
        .file("f", b"")
        .end();
    refused(&twice, "two extended headers");
    let names = Tar::new()
        .add(
            Entry {
                name: b"x",
                flag: b'L',
                ..Entry::default()
            },
            b"a\0",
        )
        .add(
            Entry {
                name: b"x",
                flag: b'L',
                ..Entry::default()
            },
            b"b\0",
        )
        .file("f", b"")
        .end();
    refused(&names, "two long names");
    refused(
        &Tar::new()
            .add(
                Entry {
                    name: b"x",
                    flag: b'L',
                    ..Entry::default()
                },
                b"a\0",
            )
            .end(),
        "ends after",
    );
    refused(
        &Tar::new()
            .add(
                Entry {
                    name: b"x",
                    flag: b'x',
                    size: Some(4 << 30),
                    ..Entry::default()
                },
                b"",
            )
            .end(),
        "extended header of",
    );
    refused(
        &Tar::new()
            .add(
                Entry {
                    name: b"x",
                    flag: b'V',
                    ..Entry::default()
                },
                b"",
            )
            .end(),
        "unhandled tar header type",
    );
    refused(
        &Tar::new().pax("uid", b"4294967295").file("f", b"").end(),
        "user number",
    );
    refused(
        &Tar::new()
            .pax("uid", b"18446744073709551616")
            .file("f", b"")
            .end(),
        "malformed number",
    );
    refused(
        &Tar::new()
            .pax("size", b"18446744073709551615")
            .file("f", b"")
            .end(),
        "larger than any file",
    );
}

#[test]
fn headers_without_contents_have_none() {
    // A directory whose header states a size: the next block is the next header, as for Go.
    let tar = Tar::new()
        .add(
            Entry {
                name: b"d/",
                flag: b'5',
                size: Some(512),
                ..Entry::default()
            },
            b"",
        )
        .file("f", b"x")
        .end();
    assert_eq!(members(&tar).unwrap().len(), 2);
}

#[test]
fn global_headers_are_comments() {
    let mut block = Vec::new();
    super::super::pax::write_record(&mut block, b"path", b"/etc/passwd");
    let tar = Tar::new()
        .add(
            Entry {
                name: b"g",
                flag: b'g',
                ..Entry::default()
            },
            &block,
        )
        .file("f", b"")
        .end();
    assert_eq!(members(&tar).unwrap()[0].0.name, b"f");
}

#[test]
fn four_notations_of_holes() {
    let segments = |all: Vec<(Member, Vec<u8>)>| {
        let (member, contents) = &all[0];
        assert_eq!((&member.name[..], member.size), (&b"holes"[..], 100_000));
        assert_eq!(contents, b"headtail");
        assert_eq!(all[1].0.name, b"next");
        member.segments.clone().unwrap()
    };
    let expected = [
        Segment { offset: 0, len: 4 },
        Segment {
            offset: 99_996,
            len: 4,
        },
    ];
    let of_0_0 = Tar::new()
        .pax("GNU.sparse.size", b"100000")
        .pax("GNU.sparse.numblocks", b"2")
        .pax("GNU.sparse.offset", b"0")
        .pax("GNU.sparse.numbytes", b"4")
        .pax("GNU.sparse.offset", b"99996")
        .pax("GNU.sparse.numbytes", b"4")
        .file("holes", b"headtail")
        .file("next", b"");
    assert_eq!(segments(members(&of_0_0.end()).unwrap()), expected);
    let of_0_1 = Tar::new()
        .pax("GNU.sparse.size", b"100000")
        .pax("GNU.sparse.name", b"holes")
        .pax("GNU.sparse.map", b"0,4,99996,4")
        .file("GNUSparseFile.1/holes", b"headtail")
        .file("next", b"");
    assert_eq!(segments(members(&of_0_1.end()).unwrap()), expected);
    let mut data = b"2\n0\n4\n99996\n4\n".to_vec();
    data.resize(512, 0);
    data.extend(b"headtail");
    let of_1_0 = Tar::new()
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.name", b"holes")
        .pax("GNU.sparse.realsize", b"100000")
        .file("GNUSparseFile.1/holes", &data)
        .file("next", b"");
    assert_eq!(segments(members(&of_1_0.end()).unwrap()), expected);
    let mut header = tar::Header::new_gnu();
    header.set_path("holes").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_size(8);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(100_000);
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(4);
    gnu.sparse[1].set_offset(99_996);
    gnu.sparse[1].set_length(4);
    header.set_cksum();
    let mut data = b"headtail".to_vec();
    data.resize(512, 0);
    let old = Tar::new()
        .raw(header.as_bytes())
        .raw(&data)
        .file("next", b"");
    assert_eq!(segments(members(&old.end()).unwrap()), expected);
}

#[test]
fn bad_holes() {
    refused(
        &Tar::new()
            .pax("GNU.sparse.major", b"2")
            .pax("GNU.sparse.minor", b"0")
            .file("f", b"")
            .end(),
        "unknown format",
    );
    refused(
        &Tar::new()
            .pax("GNU.sparse.map", b"0,4")
            .file("f", b"head")
            .end(),
        "real size",
    );
    refused(
        &Tar::new()
            .pax("GNU.sparse.size", b"9")
            .pax("GNU.sparse.map", b"0,4")
            .file("f", b"hea")
            .end(),
        "the archive holds 3",
    );
    let mut data = b"99999999999\n".to_vec();
    data.resize(512, 0);
    let huge = Tar::new()
        .pax("GNU.sparse.major", b"1")
        .pax("GNU.sparse.minor", b"0")
        .pax("GNU.sparse.realsize", b"9")
        .file("f", &data)
        .end();
    refused(&huge, "more than");
}

#[test]
fn verbatim_and_contents_are_the_whole() {
    let mut tar = Tar::new()
        .dir("d/")
        .pax("mtime", b"1.25")
        .file("d/f", &[7; 777])
        .symlink("l", "x")
        .file("e", b"")
        .end();
    tar.extend([0; 3000]);
    tar.extend(b"garbage behind the end");
    let mut reader = TarReader::new(&tar[..], Kept::default(), "test");
    while let Some(member) = reader.next_member().unwrap() {
        if member.size > 0 {
            let mut contents = Vec::new();
            reader
                .contents(u64::MAX, &mut |bytes| {
                    contents.extend_from_slice(bytes);
                    Ok(())
                })
                .unwrap();
            reader.verbatim().0.extend(contents);
        }
    }
    assert!(reader.finish().unwrap() > 0);
    assert!(reader.into_verbatim().0 == tar);
}

proptest! {
    #[test]
    fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let _ = members(&bytes);
    }

    #[test]
    fn damaged_archives_never_panic(at in 0usize..4096, value: u8, flag in prop::sample::select(b"01234567xgLKS".to_vec())) {
        let mut tar = Tar::new()
            .pax("GNU.sparse.size", b"100").pax("GNU.sparse.map", b"0,4,50,4")
            .add(Entry { name: b"x", flag, ..Entry::default() }, b"headtail")
            .file("g", b"data")
            .end();
        let at = at % tar.len();
        tar[at] = value;
        // The checksum is made right again, or nothing behind it would be reached.
        let block = at / 512 * 512;
        let mut header = tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(&tar[block..block + 512]);
        header.set_cksum();
        tar[block..block + 512].copy_from_slice(header.as_bytes());
        let _ = members(&tar);
    }
}
