use super::*;

fn log(
    dir: &std::path::Path,
    max_size: u64,
    max_files: u32,
    attrs: &[(String, String)],
) -> JsonLog {
    let file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(dir.join("log"))
        .unwrap();
    let handle = berth_sys::path::open_root(dir).unwrap();
    let rotation = Rotation {
        dir: handle,
        name: "log".into(),
        max_size,
        max_files,
    };
    JsonLog::new(file.into(), rotation, attrs).unwrap()
}

/// The contents with the times taken out.
fn read(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let (head, time) = line.split_once(",\"time\":\"").unwrap();
            assert!(time.ends_with("Z\"}"), "{time}");
            head.to_owned()
        })
        .collect()
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    escape(bytes, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn escapes_are_mobys() {
    assert_eq!(
        escaped(b"a\"b\\c\t\r\n\x00\x1f"),
        r#"a\"b\\c\u0009\r\n\u0000\u001f"#
    );
    assert_eq!(escaped(b"<a>&"), r"\u003ca\u003e\u0026");
    assert_eq!(escaped("grün €😀".as_bytes()), "grün €😀");
    assert_eq!(
        escaped("\u{2028}\u{2029}\u{7f}".as_bytes()),
        "\\u2028\\u2029\u{7f}"
    );
    assert_eq!(escaped(b"\xff\xc3("), r"\ufffd\ufffd(");
    // A character cut off, an overlong one and a surrogate.
    assert_eq!(escaped(b"\xe2\x82"), r"\ufffd\ufffd");
    assert_eq!(escaped(b"\xc0\xaf"), r"\ufffd\ufffd");
    assert_eq!(escaped(b"\xed\xa0\x80"), r"\ufffd\ufffd\ufffd");
}

#[test]
fn times_are_gos() {
    let mut clock = Clock::default();
    assert_eq!(clock.format(0, 0), "1970-01-01T00:00:00Z");
    assert_eq!(
        clock.format(1_709_164_800, 120_000_000),
        "2024-02-29T00:00:00.12Z"
    );
    assert_eq!(
        clock.format(1_709_164_800, 5),
        "2024-02-29T00:00:00.000000005Z"
    );
    assert_eq!(
        clock.format(4_102_444_799, 999_999_999),
        "2099-12-31T23:59:59.999999999Z"
    );
    assert_eq!(clock.format(-1, 0), "1969-12-31T23:59:59Z");
    let now = clock.now().to_owned();
    assert!(
        now.len() > SECONDS_LEN && now.ends_with('Z') && now.as_str() > "2020",
        "{now}"
    );
}

#[test]
fn newlines_are_found_anywhere() {
    for length in 0..40 {
        for at in 0..length {
            let mut bytes = vec![b'\x0b'; length];
            bytes[at] = b'\n';
            assert_eq!(find_newline(&bytes), Some(at), "{at} of {length}");
        }
        assert_eq!(find_newline(&vec![0x8a; length]), None);
    }
}

#[test]
fn lines_are_put_together_and_the_last_needs_no_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 0, 1, &[]);
    log.feed(Stream::Stdout, b"one\ntw");
    log.feed(Stream::Stderr, b"err\n\n");
    assert_eq!(log.pending(Stream::Stdout), b"tw");
    log.feed(Stream::Stdout, b"o\nthree");
    log.finish(Stream::Stdout);
    log.finish(Stream::Stderr);
    let path = dir.path().join("log");
    assert_eq!(
        read(&path),
        [
            r#"{"log":"one\n","stream":"stdout""#,
            r#"{"log":"err\n","stream":"stderr""#,
            r#"{"log":"\n","stream":"stderr""#,
            r#"{"log":"two\n","stream":"stdout""#,
            r#"{"log":"three","stream":"stdout""#,
        ]
    );
    assert_eq!(log.position(), std::fs::metadata(path).unwrap().len());
}

#[test]
fn long_lines_come_in_parts_with_one_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 0, 1, &[]);
    let mut line = vec![b'x'; LINE_LIMIT];
    line.push(b'\n');
    // In odd pieces: the parts do not depend on how the output is read.
    for piece in line.chunks(5000) {
        log.feed(Stream::Stdout, piece);
    }
    let mut fits = vec![b'y'; LINE_LIMIT - 1];
    fits.push(b'\n');
    log.feed(Stream::Stdout, &fits);
    let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let times: Vec<_> = text
        .lines()
        .map(|line| line.split_once("time").unwrap().1)
        .collect();
    assert_eq!(times[0], times[1]);
    let lengths: Vec<_> = read(&dir.path().join("log"))
        .iter()
        .map(|line| line.len() - r#"{"log":"","stream":"stdout""#.len())
        .collect();
    assert_eq!(lengths, [LINE_LIMIT, 2, LINE_LIMIT - 1 + 2]);
}

#[test]
fn attributes_stand_in_every_entry() {
    let dir = tempfile::tempdir().unwrap();
    let attrs = [
        ("a".to_owned(), "1\"".to_owned()),
        ("b".to_owned(), String::new()),
    ];
    let mut log = log(dir.path(), 0, 1, &attrs);
    log.feed(Stream::Stdout, b"x\n");
    assert_eq!(
        read(&dir.path().join("log")),
        [r#"{"log":"x\n","stream":"stdout","attrs":{"a":"1\"","b":""}"#]
    );
}

#[test]
fn files_are_rotated_within_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 1, 3, &[]);
    for n in 0..5 {
        log.feed(Stream::Stdout, format!("{n}\n").as_bytes());
    }
    for (name, line) in [("log", 4), ("log.1", 3), ("log.2", 2)] {
        assert_eq!(
            read(&dir.path().join(name)),
            [format!(r#"{{"log":"{line}\n","stream":"stdout""#)]
        );
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn one_file_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log(dir.path(), 100, 1, &[]);
    for n in 0..5 {
        log.feed(Stream::Stdout, format!("{n}\n").as_bytes());
    }
    assert_eq!(read(&dir.path().join("log")).len(), 1);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_full_disk_loses_lines_and_no_more() {
    let full = std::fs::OpenOptions::new()
        .append(true)
        .open("/dev/full")
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let handle = berth_sys::path::open_root(dir.path()).unwrap();
    let rotation = Rotation {
        dir: handle,
        name: "log".into(),
        max_size: 0,
        max_files: 1,
    };
    let mut log = JsonLog::new(full.into(), rotation, &[]).unwrap();
    log.feed(Stream::Stdout, b"lost\n");
    log.finish(Stream::Stdout);
    assert_eq!(log.position(), 0);
}
