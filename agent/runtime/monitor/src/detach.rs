//! The keys that end an attachment without ending the container.

/// Looks for a key sequence in what a client types. What could be its beginning is held back until
/// the next key tells, as Docker does it.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// An empty sequence never matches.
    pub(crate) fn new(keys: Vec<u8>) -> DetachKeys {
        DetachKeys { keys, matched: 0 }
    }

    /// Appends to `out` what is meant for the container; true when the sequence is complete (what
    /// was typed after it is dropped).
    pub(crate) fn feed(&mut self, typed: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(typed);
            return false;
        }
        for byte in typed {
            if *byte != self.keys[self.matched] && self.matched > 0 {
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return true;
                }
            } else {
                out.push(*byte);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &[u8], typed: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut scanner = DetachKeys::new(keys.to_vec());
        let mut out = Vec::new();
        let detached = typed.iter().any(|part| scanner.feed(part, &mut out));
        (out, detached)
    }

    #[test]
    fn the_sequence_ends_it_across_reads() {
        assert_eq!(
            run(b"\x10\x11", &[b"ab\x10", b"\x11cd"]),
            (b"ab".to_vec(), true)
        );
        assert_eq!(
            run(b"\x10\x11", &[b"\x10\x10\x11"]),
            (b"\x10".to_vec(), true)
        );
        assert_eq!(run(b"q", &[b"abq"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn a_beginning_that_goes_on_otherwise_is_typed() {
        assert_eq!(
            run(b"\x10\x11", &[b"\x10", b"x\x11"]),
            (b"\x10x\x11".to_vec(), false)
        );
        // Still held back: the next key decides.
        assert_eq!(run(b"\x10\x11", &[b"a\x10"]), (b"a".to_vec(), false));
        assert_eq!(run(b"", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
    }
}
