//! Just enough of the ELF format to tell a static program from a dynamic one: the monitor runs where there is
//! no loader, and a dynamic one would look for one inside a container.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

/// Fails unless the file is a 64-bit little-endian ELF program that needs neither loader nor libraries.
pub(crate) fn check_static(program: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let kinds =
        segment_kinds(&bytes).with_context(|| format!("{} is no program", program.display()))?;
    if kinds.contains(&PT_INTERP) || kinds.contains(&PT_DYNAMIC) {
        bail!("{} is not static: it asks for a loader", program.display());
    }
    Ok(())
}

/// The types of the program headers; None when the bytes are not an ELF file of the kind that we build.
fn segment_kinds(bytes: &[u8]) -> Option<Vec<u32>> {
    if bytes.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let table = usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
    let size = usize::from(u16::from_le_bytes(bytes.get(54..56)?.try_into().ok()?));
    let count = usize::from(u16::from_le_bytes(bytes.get(56..58)?.try_into().ok()?));
    (0..count)
        .map(|index| {
            let at = table.checked_add(size.checked_mul(index)?)?;
            Some(u32::from_le_bytes(
                bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_binary_is_dynamic() {
        let program = std::env::current_exe().unwrap();
        let error = check_static(&program).unwrap_err();
        assert!(error.to_string().contains("not static"), "{error}");
    }

    #[test]
    fn a_text_file_is_no_program() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(
            check_static(&file)
                .unwrap_err()
                .to_string()
                .contains("no program")
        );
    }

    #[test]
    fn a_cut_header_is_no_program() {
        assert_eq!(segment_kinds(&[0x7f, b'E', b'L', b'F', 2, 1, 0]), None);
    }
}
