//! Extended headers of pax: `LENGTH KEY=VALUE\n`, read by their lengths, because values may be
//! binary. Pure.

use std::io;

use berth_sys::at::FileTime;

/// What one extended header says about the member that follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<FileTime>,
    /// In the order of the archive; of one name the last counts.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: SparseRecords,
}

/// The `GNU.sparse.*` records, as they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SparseRecords {
    pub(crate) major: Option<Vec<u8>>,
    pub(crate) minor: Option<Vec<u8>>,
    pub(crate) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`
    pub(crate) size: Option<u64>,
    /// Offsets and lengths, alternating: from the map of format 0.1 or the record pairs of 0.0.
    pub(crate) map: Vec<u64>,
    pub(crate) map_seen: bool,
}

/// Reads the records of one extended header.
pub(crate) fn parse(mut block: &[u8]) -> Result<Pax, String> {
    let mut pax = Pax::default();
    while !block.is_empty() {
        let (key, value, rest) = record(block).ok_or("malformed extended header")?;
        block = rest;
        // An empty value takes the record back: the plain header counts again.
        take(&mut pax, key, value)?;
    }
    Ok(pax)
}

fn take(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), String> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        pax.xattrs.retain(|(known, _)| known != name);
        pax.xattrs.push((name.to_vec(), value.to_vec()));
        return Ok(());
    }
    match key {
        b"path" => pax.path = name(value)?,
        b"linkpath" => pax.link = name(value)?,
        b"size" => pax.size = number(value)?,
        b"uid" => pax.uid = number(value)?,
        b"gid" => pax.gid = number(value)?,
        b"mtime" => {
            pax.mtime = if value.is_empty() {
                None
            } else {
                Some(time(value).ok_or("malformed time in extended header")?)
            };
        }
        b"GNU.sparse.major" => pax.sparse.major = Some(value.to_vec()),
        b"GNU.sparse.minor" => pax.sparse.minor = Some(value.to_vec()),
        b"GNU.sparse.name" => pax.sparse.name = name(value)?,
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => pax.sparse.size = number(value)?,
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
            // Format 0.0 alternates the two, offset first.
            if (key == b"GNU.sparse.offset") != pax.sparse.map.len().is_multiple_of(2) {
                return Err("sparse records out of order".to_owned());
            }
            pax.sparse.map_seen = true;
            pax.sparse
                .map
                .push(number(value)?.ok_or("empty sparse record")?);
        }
        b"GNU.sparse.map" => {
            pax.sparse.map_seen = true;
            pax.sparse.map = if value.is_empty() {
                Vec::new()
            } else {
                value
                    .split(|byte| *byte == b',')
                    .map(|part| number(part)?.ok_or_else(|| "malformed sparse map".to_owned()))
                    .collect::<Result<_, String>>()?
            };
        }
        _ => {}
    }
    Ok(())
}

/// The first record of a block: key, value, what follows.
fn record(block: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = block.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits(&block[..space])?).ok()?;
    if length <= space + 1 || length > block.len() {
        return None;
    }
    let (body, newline) = block[space + 1..length].split_at(length - space - 2);
    if newline != b"\n" {
        return None;
    }
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let key = &body[..equals];
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, &body[equals + 1..], &block[length..]))
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if value.contains(&0) {
        return Err("a name in an extended header contains a NUL byte".to_owned());
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number(value: &[u8]) -> Result<Option<u64>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    digits(value)
        .map(Some)
        .ok_or_else(|| "malformed number in extended header".to_owned())
}

/// Decimal digits only: no sign, no blank, no overflow.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are cut off towards the past.
fn time(text: &[u8]) -> Option<FileTime> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b""[..]),
    };
    let secs = i64::try_from(digits(whole)?).ok()?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0u32;
    for place in 0..9 {
        nanos = nanos * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
    }
    Some(match (negative, nanos) {
        (false, _) => FileTime { secs, nanos },
        (true, 0) => FileTime {
            secs: -secs,
            nanos: 0,
        },
        (true, _) => FileTime {
            secs: -secs - 1,
            nanos: 1_000_000_000 - nanos,
        },
    })
}

/// Writes one record.
#[cfg(test)]
pub(crate) fn write_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A plain header's number: octal digits in blanks and NULs, or base 256 when the first bit is set.
pub(crate) fn field(bytes: &[u8]) -> io::Result<i64> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "malformed number in header");
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => {
            // Two's complement; the marker bit is the sign's neighbour, so it is taken out.
            let negative = first & 0x40 != 0;
            let mut value: i128 = if negative { -1 } else { 0 };
            for (at, byte) in bytes.iter().enumerate() {
                let byte = if at == 0 && !negative {
                    byte & 0x7f
                } else {
                    *byte
                };
                value = value
                    .checked_mul(256)
                    .and_then(|v| v.checked_add(i128::from(byte)))
                    .ok_or_else(bad)?;
            }
            i64::try_from(value).map_err(|_| bad())
        }
        _ => {
            let trimmed = bytes
                .iter()
                .position(|b| !matches!(b, b' ' | 0))
                .map_or(&b""[..], |start| &bytes[start..]);
            let end = trimmed
                .iter()
                .position(|b| matches!(b, b' ' | 0))
                .unwrap_or(trimmed.len());
            let (number, tail) = trimmed.split_at(end);
            if !tail.iter().all(|b| matches!(b, b' ' | 0)) {
                return Err(bad());
            }
            number.iter().try_fold(0i64, |value, digit| match digit {
                b'0'..=b'7' => value
                    .checked_mul(8)
                    .and_then(|v| v.checked_add(i64::from(digit - b'0')))
                    .ok_or_else(bad),
                _ => Err(bad()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn binary_values_with_newlines() {
        let mut block = Vec::new();
        write_record(
            &mut block,
            b"SCHILY.xattr.security.capability",
            b"\x01\x00\x00\x02\n\n=\x00 7 a=b\n",
        );
        write_record(&mut block, b"path", b"a name with = and \xff");
        let pax = parse(&block).unwrap();
        assert_eq!(
            pax.xattrs,
            [(
                b"security.capability".to_vec(),
                b"\x01\x00\x00\x02\n\n=\x00 7 a=b\n".to_vec()
            )]
        );
        assert_eq!(pax.path.as_deref(), Some(&b"a name with = and \xff"[..]));
    }

    #[test]
    fn malformed_records() {
        for block in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"6 a=bX",
            b"x a=b\n",
            b" 6 a=b\n",
            b"6 =ab\n",
            b"6 abc\n",
            b"99999999999999999999999 a=b\n",
            b"13 path=a\0b\n\n",
            b"11 size=-1\n",
            b"11 size=+1\n",
            b"30 size=99999999999999999999\n",
            b"0 a=b\n",
            b"1 ",
        ] {
            assert!(
                parse(block).is_err(),
                "{:?}",
                String::from_utf8_lossy(block)
            );
        }
        assert_eq!(parse(b"6 a=b\n").unwrap(), Pax::default());
        assert_eq!(parse(b"8 path=\n").unwrap().path, None);
    }

    #[test]
    fn times() {
        for (text, secs, nanos) in [
            ("0", 0, 0),
            ("1700000000.123456789", 1_700_000_000, 123_456_789),
            ("1.5", 1, 500_000_000),
            ("1.", 1, 0),
            ("1.1234567899", 1, 123_456_789),
            ("-1", -1, 0),
            ("-0.25", -1, 750_000_000),
            ("-1.5", -2, 500_000_000),
        ] {
            assert_eq!(
                time(text.as_bytes()),
                Some(FileTime { secs, nanos }),
                "{text}"
            );
        }
        for text in ["", "-", ".", "1.x", "1e3", "+1", "9223372036854775808"] {
            assert_eq!(time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn plain_numbers() {
        for (bytes, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"    644 ", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"644\0\0\0\0\0", 0o644),
            (b"\x80\0\0\0\0\0\x01\0", 256),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(field(bytes).unwrap(), value, "{bytes:?}");
        }
        assert!(field(b"12x4").is_err());
        assert!(field(b"12 4").is_err());
        assert!(field(b"9\0").is_err());
        assert!(field(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }

    proptest! {
        #[test]
        fn any_value_survives(value in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut block = Vec::new();
            write_record(&mut block, b"SCHILY.xattr.user.x", &value);
            write_record(&mut block, b"size", b"12");
            let pax = parse(&block).unwrap();
            prop_assert_eq!(&pax.xattrs[0].1, &value);
            prop_assert_eq!(pax.size, Some(12));
        }

        #[test]
        fn parsing_never_panics(block in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&block);
        }

        #[test]
        fn fields_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..13)) {
            let _ = field(&bytes);
        }
    }
}
