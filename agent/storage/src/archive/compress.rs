//! Compression, told by the first bytes and undone in-process: no program is ever run for it, and
//! no decoder may ask for more memory than [`crate::limits`] grants.

use std::io::{self, BufReader, Chain, Cursor, Read};

use liblzma::stream::{CONCATENATED, Stream};

use crate::limits::{WINDOW_LOG_MAX, XZ_MEMORY_MAX};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

/// As many leading bytes as any of the kinds needs.
const SNIFF: usize = 6;
/// Read-ahead of the decoders.
const BUFFER: usize = 128 * 1024;

impl Compression {
    /// What these leading bytes stand for. A stream too short to tell is not compressed.
    pub(crate) fn sniff(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [b'B', b'Z', b'h', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A skippable frame: chunked zstd layers may begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// The plain bytes of a stream, whatever its compression; concatenated members are one stream.
pub(crate) fn decoder<'a>(
    mut input: Box<dyn Read + 'a>,
) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    let mut head = Vec::with_capacity(SNIFF);
    input.by_ref().take(SNIFF as u64).read_to_end(&mut head)?;
    let compression = Compression::sniff(&head);
    let whole: Chain<Cursor<Vec<u8>>, Box<dyn Read + 'a>> = Cursor::new(head).chain(input);
    let plain: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(
            BufReader::with_capacity(BUFFER, whole),
        )),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(
            BufReader::with_capacity(BUFFER, whole),
        )),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(
                BufReader::with_capacity(BUFFER, whole),
                stream,
            ))
        }
        Compression::Zstd => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(BUFFER, whole))?;
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    };
    Ok((compression, plain))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn plain(bytes: Vec<u8>) -> io::Result<(Compression, Vec<u8>)> {
        let (kind, mut decoder) = decoder(Box::new(Cursor::new(bytes)))?;
        let mut out = Vec::new();
        decoder.read_to_end(&mut out)?;
        Ok((kind, out))
    }

    fn text() -> Vec<u8> {
        (0..50_000u32)
            .flat_map(|i| i.to_string().into_bytes())
            .collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_kind_is_told_and_undone() {
        let text = text();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).unwrap();
        for (kind, bytes) in [
            (Compression::None, text.clone()),
            (Compression::Gzip, gzip(&text)),
            (Compression::Bzip2, bz.finish().unwrap()),
            (Compression::Xz, xz.finish().unwrap()),
            (Compression::Zstd, zstd::encode_all(&text[..], 1).unwrap()),
        ] {
            let (found, out) = plain(bytes).unwrap();
            assert_eq!(found, kind);
            assert!(out == text, "{kind:?}");
        }
    }

    #[test]
    fn members_follow_each_other() {
        let mut two = gzip(b"one ");
        two.extend(gzip(b"two"));
        assert_eq!(plain(two).unwrap().1, b"one two");
        let mut skippable = vec![0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        skippable.extend(zstd::encode_all(&b"after"[..], 1).unwrap());
        assert_eq!(
            plain(skippable).unwrap(),
            (Compression::Zstd, b"after".to_vec())
        );
    }

    #[test]
    fn short_and_cut_streams() {
        assert_eq!(plain(vec![]).unwrap(), (Compression::None, vec![]));
        assert_eq!(
            plain(vec![0x1f, 0x8b]).unwrap(),
            (Compression::None, vec![0x1f, 0x8b])
        );
        let text = text();
        let mut cut = gzip(&text);
        cut.truncate(cut.len() - 9);
        assert!(plain(cut).is_err());
        let mut cut = zstd::encode_all(&text[..], 1).unwrap();
        cut.truncate(cut.len() - 1);
        assert!(plain(cut).is_err());
    }

    #[test]
    fn windows_are_capped() {
        // A zstd frame header that asks for a window of 2 GiB: descriptor without content size, then
        // the window descriptor's exponent 21 (2^31).
        let zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
        assert!(plain(zstd).is_err());
        // An xz stream whose block header asks for a dictionary of 1.5 GiB instead of 256 KiB.
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(b"x").unwrap();
        let mut xz = encoder.finish().unwrap();
        assert_eq!(plain(xz.clone()).unwrap().1, b"x");
        assert_eq!(xz[14..16], [0x21, 1], "LZMA2 and one byte of properties");
        xz[16] = 37;
        let length = (usize::from(xz[12]) + 1) * 4;
        let checksum = crc32(&xz[12..12 + length - 4]);
        xz[12 + length - 4..12 + length].copy_from_slice(&checksum.to_le_bytes());
        let error = plain(xz).unwrap_err().to_string();
        assert!(error.contains("memory"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }
}
