//! The file that is distributed: pseudo-random, so that nothing can compress it, and the same in
//! every run.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

/// What every contender calls the file.
pub(crate) const NAME: &str = "image.bin";

/// A file with a known hash.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    pub(crate) sha256: String,
}

impl Image {
    /// Writes `image.bin` of this length into a directory.
    pub(crate) fn create(dir: &Path, len: u64) -> Result<Self> {
        let path = dir.join(NAME);
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let mut left = len;
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block = vec![0; 1 << 16];
        while left > 0 {
            for word in block.chunks_exact_mut(8) {
                // xorshift64: any full-period generator does, nothing here is a secret.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&state.to_le_bytes());
            }
            let len = left.min(block.len() as u64);
            file.write_all(&block[..len as usize])?;
            left -= len;
        }
        file.into_inner().context("writing the image")?;
        let sha256 = sha256_of(&path)?;
        Ok(Self { path, len, sha256 })
    }

    /// Whether a file has the same content.
    pub(crate) fn equals(&self, path: &Path) -> bool {
        sha256_of(path).is_ok_and(|sha256| sha256 == self.sha256)
    }
}

fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            len => hash.update(&buffer[..len]),
        }
    }
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A length as people write it: `128MiB`, `1GiB`, `65536`.
pub(crate) fn parse_len(text: &str) -> Result<u64> {
    let digits_len = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_len);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => 64,
    };
    let number: u64 = digits.parse().with_context(|| format!("{text:?} is not a length"))?;
    let len = 1_u64.checked_shl(shift).and_then(|unit| number.checked_mul(unit)).unwrap_or(0);
    ensure!(len > 0, "{text:?} is not a length: write 128MiB, 1GiB or bytes");
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_read_as_people_write_them() {
        for (text, expect) in [
            ("128MiB", Some(128 << 20)),
            ("1GiB", Some(1 << 30)),
            ("65536", Some(65_536)),
            ("0", None),
            ("12MB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse_len(text).ok(), expect, "{text}");
        }
    }
}
