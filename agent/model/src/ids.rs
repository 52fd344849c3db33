//! Identifiers of containers and of the agent's other objects: 64 lower-case hex digits, shown as
//! the first twelve.

/// Length of a full id.
pub const LEN: usize = 64;
/// Length of the form that people see and that host names and unit names carry.
pub const SHORT_LEN: usize = 12;

/// An id from 32 random bytes. None where the short form would be all digits: as a host name or a
/// JSON value it would be taken for a number, so the caller draws again.
pub fn from_random(bytes: [u8; 32]) -> Option<String> {
    let id = hex::encode(bytes);
    id.as_bytes()[..SHORT_LEN]
        .iter()
        .any(|b| !b.is_ascii_digit())
        .then_some(id)
}

/// The first twelve characters; the whole text if it is shorter.
pub fn short(id: &str) -> &str {
    id.get(..SHORT_LEN).unwrap_or(id)
}

/// Whether this has the form of a full id.
pub fn is_full(text: &str) -> bool {
    text.len() == LEN && is_prefix(text)
}

/// Whether this could begin an id.
pub fn is_prefix(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= LEN
        && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_drawn_again() {
        assert_eq!(from_random([0x12; 32]), None);
        let id = from_random([0x1a; 32]).unwrap();
        assert!(is_full(&id));
        assert_eq!(short(&id), "1a1a1a1a1a1a");
        let mut bytes = [0x11; 32];
        bytes[31] = 0xff;
        assert_eq!(from_random(bytes), None, "only the short form counts");
    }

    #[test]
    fn forms() {
        assert!(!is_full("abc") && is_prefix("abc"));
        assert!(!is_prefix("") && !is_prefix("ABC") && !is_prefix("xyz"));
        assert!(!is_prefix(&"a".repeat(65)));
        assert_eq!(short("abc"), "abc");
        assert_eq!(short("äöüäöüäöü"), "äöüäöü");
    }
}
