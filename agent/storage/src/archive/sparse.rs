//! Sparse members: which ranges of the file the archive holds. Pure.
//!
//! Four notations exist: GNU tar's old header (type `S`), and three of its pax formats (0.0, 0.1,
//! 1.0). All end in the same list, which is checked the same way.

use crate::limits::SPARSE_SEGMENTS_MAX;

/// A range of the file whose bytes are in the archive; the rest is holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Checks a list of alternating offsets and lengths against the file's size and the bytes that the
/// archive holds for it. Ranges must ascend without overlap.
pub(crate) fn segments(map: &[u64], size: u64, stored: u64) -> Result<Vec<Segment>, String> {
    if !map.len().is_multiple_of(2) {
        return Err("the sparse map has an odd number of entries".to_owned());
    }
    if map.len() / 2 > SPARSE_SEGMENTS_MAX {
        return Err(format!(
            "the sparse map has more than {SPARSE_SEGMENTS_MAX} entries"
        ));
    }
    if i64::try_from(size).is_err() {
        return Err("the sparse file is larger than any file can be".to_owned());
    }
    let mut end = 0;
    let mut total = 0u64;
    let mut list = Vec::with_capacity(map.len() / 2);
    for pair in map.chunks_exact(2) {
        let (offset, len) = (pair[0], pair[1]);
        if offset < end {
            return Err("the sparse map is out of order or overlaps".to_owned());
        }
        end = offset
            .checked_add(len)
            .filter(|end| *end <= size)
            .ok_or("the sparse map goes beyond the file's end")?;
        total += len;
        if len > 0 {
            list.push(Segment { offset, len });
        }
    }
    if total != stored {
        return Err(format!(
            "the sparse map names {total} bytes, the archive holds {stored}"
        ));
    }
    Ok(list)
}

/// Collects the numbers at the head of a format 1.0 member: a count, then that many pairs, one
/// number a line, in whole blocks.
#[derive(Debug, Default)]
pub(crate) struct MapText {
    numbers: Vec<u64>,
    current: Vec<u8>,
}

impl MapText {
    /// Takes one block; `true` when the map is complete (the rest of the block is padding).
    pub(crate) fn block(&mut self, block: &[u8]) -> Result<bool, String> {
        for byte in block {
            if *byte != b'\n' {
                self.current.push(*byte);
                if self.current.len() > 20 {
                    return Err("malformed sparse map".to_owned());
                }
                continue;
            }
            let number = super::pax::digits(&self.current).ok_or("malformed sparse map")?;
            self.current.clear();
            self.numbers.push(number);
            if self.numbers[0] > SPARSE_SEGMENTS_MAX as u64 {
                return Err(format!(
                    "the sparse map has more than {SPARSE_SEGMENTS_MAX} entries"
                ));
            }
            if self.complete() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn complete(&self) -> bool {
        self.numbers
            .first()
            .is_some_and(|count| self.numbers.len() as u64 == 1 + 2 * count)
    }

    /// The alternating offsets and lengths.
    pub(crate) fn into_map(mut self) -> Vec<u64> {
        if !self.numbers.is_empty() {
            self.numbers.remove(0);
        }
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_checked() {
        assert_eq!(
            segments(&[0, 5, 10, 5, 100, 0], 100, 10).unwrap(),
            [
                Segment { offset: 0, len: 5 },
                Segment { offset: 10, len: 5 }
            ]
        );
        assert!(segments(&[0], 10, 0).is_err());
        assert!(segments(&[5, 5, 0, 5], 100, 10).is_err());
        assert!(segments(&[0, 5, 4, 5], 100, 10).is_err());
        assert!(segments(&[0, 5], 4, 5).is_err());
        assert!(segments(&[u64::MAX, 2], u64::MAX, 2).is_err());
        assert!(segments(&[0, 5], 100, 6).is_err());
        assert!(segments(&vec![0; 2 * SPARSE_SEGMENTS_MAX + 2], 100, 0).is_err());
        assert!(segments(&[], u64::MAX, 0).is_err());
    }

    #[test]
    fn maps_in_the_data() {
        let mut text = MapText::default();
        assert!(!text.block(b"2\n0\n5").unwrap());
        assert!(text.block(b"\n10\n5\n\0\0\0").unwrap());
        assert_eq!(text.into_map(), [0, 5, 10, 5]);
        assert!(MapText::default().block(b"0\n").unwrap());
        for bad in [
            &b"x\n"[..],
            b"\n",
            b"99999999\n",
            b"111111111111111111111",
            b"-1\n",
        ] {
            assert!(MapText::default().block(bad).is_err());
        }
    }
}
