use proptest::prelude::*;

use super::*;

const SET: Set<'static> = Set {
    family: Family::Inet,
    table: "berth",
    name: "addresses",
};

fn answer(sequence: u32, code: i32) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&20u32.to_ne_bytes());
    out.extend_from_slice(&NLMSG_ERROR.to_ne_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&sequence.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&code.to_ne_bytes());
    out
}

#[test]
#[cfg(target_endian = "little")]
fn one_element_is_these_bytes() {
    let mut batch = Batch::new(7);
    batch
        .elements(NEW_ELEMENT, &SET, Some(&[Element::key(&[172, 29, 0, 2])]))
        .unwrap();
    let (bytes, wanted, last) = batch.close().unwrap().unwrap();
    assert_eq!(
        (wanted.begin, wanted.first, wanted.count, last),
        (7, 8, 1, 9)
    );
    let begin = [
        20, 0, 0, 0, 0x10, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
    ];
    assert_eq!(bytes[..20], begin);
    let message = &bytes[20..bytes.len() - 20];
    assert_eq!(usize::from(message[0]), message.len());
    // Type and flags (request, ack, create), sequence number, port, family inet.
    assert_eq!(
        message[4..20],
        [12, 10, 5, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    );
    assert_eq!(message[20..32], *b"\x0a\0\x01\0berth\0\0\0");
    assert_eq!(message[32..48], *b"\x0e\0\x02\0addresses\0\0\0");
    assert_eq!(
        message[48..],
        [
            20, 0, 3, 128, 16, 0, 1, 128, 12, 0, 1, 128, 8, 0, 1, 0, 172, 29, 0, 2
        ]
    );
    let end = [
        20, 0, 0, 0, 0x11, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10,
    ];
    assert_eq!(bytes[bytes.len() - 20..], end);
}

#[test]
fn nothing_to_do_is_not_sent() {
    assert!(Batch::new(1).close().unwrap().is_none());
}

#[test]
fn bad_names_and_keys_are_refused() {
    let mut batch = Batch::new(1);
    for name in ["", "a\0b", &"x".repeat(256)] {
        let set = Set { name, ..SET };
        assert!(
            batch
                .elements(NEW_ELEMENT, &set, Some(&[Element::key(b"1234")]))
                .is_err()
        );
    }
    for key in [&b""[..], &[0; 65]] {
        assert!(
            batch
                .elements(NEW_ELEMENT, &SET, Some(&[Element::key(key)]))
                .is_err()
        );
    }
    let longest = [Element {
        key: &[1; 64],
        value: Some(&[2; 64]),
    }; MESSAGE_ELEMENTS];
    Batch::new(1)
        .elements(NEW_ELEMENT, &SET, Some(&longest))
        .unwrap();
}

#[test]
fn answers_are_counted_and_the_first_refusal_wins() {
    let wanted = Wanted {
        begin: u32::MAX,
        first: 0,
        count: 2,
    };
    let mut answers = Answers::new(wanted);
    answers.take(&answer(77, -1)).unwrap();
    answers.take(&answer(0, 0)).unwrap();
    assert!(!answers.complete());
    answers.take(&answer(1, 0)).unwrap();
    assert!(answers.complete() && answers.result.is_ok());

    let mut answers = Answers::new(wanted);
    answers
        .take(
            &[
                answer(0, 0),
                answer(1, -libc::ENOENT),
                answer(1, -libc::EPERM),
            ]
            .concat(),
        )
        .unwrap();
    assert!(answers.complete());
    assert_eq!(
        answers.result.unwrap_err().raw_os_error(),
        Some(libc::ENOENT)
    );

    // A commit that fails is told about the first message of the batch.
    let mut answers = Answers::new(wanted);
    answers.take(&answer(u32::MAX, -libc::ENOMEM)).unwrap();
    assert_eq!(
        answers.result.unwrap_err().raw_os_error(),
        Some(libc::ENOMEM)
    );
}

proptest! {
    #[test]
    fn any_answer_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut answers = Answers::new(Wanted { begin: 1, first: 2, count: 3 });
        let _ = answers.take(&bytes);
    }

    #[test]
    fn encoded_batches_are_well_formed(
        keys in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..64), 1..600),
        sequence in any::<u32>(),
    ) {
        let elements: Vec<_> = keys.iter().map(|key| Element::key(key)).collect();
        let mut batch = Batch::new(sequence);
        for part in elements.chunks(MESSAGE_ELEMENTS) {
            batch.elements(DELETE_ELEMENT, &SET, Some(part)).unwrap();
        }
        let (bytes, wanted, last) = batch.close().unwrap().unwrap();
        let seen: Vec<_> = Messages(&bytes).map(|message| message.unwrap()).collect();
        prop_assert_eq!(seen.len(), wanted.count + 2);
        for (offset, message) in seen.iter().enumerate() {
            prop_assert_eq!(message.sequence, sequence.wrapping_add(offset as u32));
        }
        prop_assert_eq!(seen.last().unwrap().sequence, last);
    }
}

/// In a network namespace of its own, against the kernel. Needs root and the `nft` program.
#[test]
fn the_kernel_takes_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: nothing tested");
        return;
    }
    crate::ns::in_thread(|| {
        crate::ns::unshare(crate::ns::Namespaces::NET).unwrap();
        let nft = |args: &[&str], input: &str| {
            let output =
                crate::spawn::run_tool("nft", args, input.as_bytes(), std::time::Duration::from_secs(20)).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let mut netfilter = Netfilter::open().unwrap();
        let one = [Element::key(&[10, 0, 0, 1])];
        assert_eq!(netfilter.add(&SET, &one).unwrap_err().kind(), io::ErrorKind::NotFound);
        netfilter.delete(&SET, &one).unwrap();
        assert!(!netfilter.has_chain(Family::Inet, "berth", "version").unwrap());

        nft(
            &["-f", "-"],
            "table inet berth {\n set addresses { type ipv4_addr; }\n map published { type inet_service : ipv4_addr; }\n chain version { }\n}\n",
        );
        assert!(netfilter.has_chain(Family::Inet, "berth", "version").unwrap());
        assert!(!netfilter.has_chain(Family::Inet, "berth", "other").unwrap());
        netfilter.add(&SET, &one).unwrap();
        netfilter.add(&SET, &one).unwrap();
        assert!(nft(&["list", "table", "inet", "berth"], "").contains("elements = { 10.0.0.1 }"));

        let many: Vec<[u8; 4]> = (0..2000u32).map(|n| (0x0a00_0000 + n).to_be_bytes()).collect();
        let elements: Vec<_> = many.iter().map(|key| Element::key(key)).collect();
        netfilter.add(&SET, &elements).unwrap();
        netfilter.delete(&SET, &elements[..1000]).unwrap();
        // Half of these are gone already.
        netfilter.delete(&SET, &elements[900..1100]).unwrap();
        let left = nft(&["list", "set", "inet", "berth", "addresses"], "").matches("10.0.").count();
        assert_eq!(left, 900);
        netfilter.replace(&SET, &one).unwrap();
        assert!(nft(&["list", "table", "inet", "berth"], "").contains("elements = { 10.0.0.1 }"));
        netfilter.replace(&SET, &[]).unwrap();
        assert!(!nft(&["list", "table", "inet", "berth"], "").contains("elements"));

        let map = Set { name: "published", ..SET };
        let entry = Element { key: &8080u16.to_be_bytes(), value: Some(&[10, 0, 0, 1]) };
        netfilter.add(&map, &[entry]).unwrap();
        netfilter.add(&map, &[entry]).unwrap();
        let clash = Element { value: Some(&[10, 0, 0, 2]), ..entry };
        assert!(netfilter.add(&map, &[clash]).is_err());
        assert!(nft(&["list", "table", "inet", "berth"], "").contains("8080 : 10.0.0.1"));
        netfilter.delete(&map, &[Element::key(entry.key)]).unwrap();
    })
    .unwrap();
}
