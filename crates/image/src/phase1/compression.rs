//! Compression: of the initramfs, in a form that the kernel takes, and of what is read.

use std::io::{self, Read, Write};

use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use serde::{Deserialize, Serialize};

use super::config::KernelConfig;

/// Level 19 is the best that needs no more than 8 MiB of memory on the node. An initramfs is made
/// once and loaded by every node.
const ZSTD_LEVEL: i32 = 19;

/// The most that a frame of another maker may ask for: 128 MiB, which is what the kernel takes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// As zstd: a window of 8 MiB, which is that of preset 6.
const XZ_PRESET: u32 = 6;

/// The most memory for reading xz: `xz -9` needs 65 MiB.
const XZ_MEMORY_MAX: u64 = 128 << 20;

/// What is written at a time, so that progress can be told.
const STEP_LEN: usize = 256 << 10;

/// The kernel reads the archives of an initramfs one after another, and those that are not
/// compressed must begin at a multiple of four. Zeros between them are passed over.
const ALIGNMENT: usize = 4;

/// How an initramfs is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard: a tenth longer than xz, and unpacked several times faster by every node.
    Zstd,
    /// xz, with CRC32, the only check that the kernel knows.
    Xz,
    /// gzip.
    Gzip,
    /// None.
    Plain,
}

impl Compression {
    /// The best that a kernel of this configuration takes. Without one, gzip: no distribution's
    /// kernel is without it.
    pub fn for_kernel(config: Option<&KernelConfig>) -> Self {
        let Some(config) = config else {
            return Self::Gzip;
        };
        let known = [
            ("CONFIG_RD_ZSTD", Self::Zstd),
            ("CONFIG_RD_XZ", Self::Xz),
            ("CONFIG_RD_GZIP", Self::Gzip),
        ];
        let taken = known.into_iter().find(|(option, _)| config.is_built_in(option));
        taken.map_or(Self::Plain, |(_, compression)| compression)
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Gzip => "gzip",
            Self::Plain => "uncompressed",
        }
    }

    /// Compresses, and says again and again how many bytes are done. The same bytes make the same
    /// bytes. Zeros are added at the end to a multiple of four.
    ///
    /// # Errors
    /// Those of the compressor: memory that it does not get.
    pub fn compress(self, bytes: &[u8], done: &mut dyn FnMut(u64)) -> io::Result<Vec<u8>> {
        let out = Vec::with_capacity(bytes.len() / 3);
        let mut out = match self {
            Self::Zstd => {
                let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
                feed(&mut encoder, bytes, done)?;
                encoder.finish()?
            }
            Self::Xz => {
                let mut filters = Filters::new();
                filters.lzma2(&LzmaOptions::new_preset(XZ_PRESET)?);
                let stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
                let mut encoder = liblzma::write::XzEncoder::new_stream(out, stream);
                feed(&mut encoder, bytes, done)?;
                encoder.finish()?
            }
            Self::Gzip => {
                let level = flate2::Compression::best();
                let mut encoder = flate2::GzBuilder::new().mtime(0).write(out, level);
                feed(&mut encoder, bytes, done)?;
                encoder.finish()?
            }
            Self::Plain => bytes.to_vec(),
        };
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        Ok(out)
    }
}

fn feed(out: &mut impl Write, bytes: &[u8], done: &mut dyn FnMut(u64)) -> io::Result<()> {
    let mut written = 0;
    for step in bytes.chunks(STEP_LEN) {
        out.write_all(step)?;
        written += step.len() as u64;
        done(written);
    }
    Ok(())
}

/// Reads what the end of a file's name says: `.xz`, `.zst`, `.gz`, or as it is.
///
/// # Errors
/// Those of the decompressor, on setting up.
pub fn reader<'a>(suffix: &str, file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match suffix {
        ".xz" => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::read::XzDecoder::new_stream(file, stream))
        }
        ".zst" => {
            let mut decoder = zstd::Decoder::new(file)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(file)),
        _ => Box::new(file),
    })
}

/// Reads all of `file`, which is compressed as the end of `name` says.
///
/// # Errors
/// If it cannot be read, or has more than `len_max` bytes.
pub fn read_all(name: &str, file: impl Read, len_max: u64) -> io::Result<Vec<u8>> {
    let suffix = name.rfind('.').map_or("", |dot| &name[dot..]);
    let mut bytes = vec![];
    // One more than fits shows that it is too long.
    reader(suffix, file)?.take(len_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > len_max {
        let message = format!("more than {len_max} bytes when unpacked");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Compression, &str); 4] = [
        (Compression::Zstd, ".zst"),
        (Compression::Xz, ".xz"),
        (Compression::Gzip, ".gz"),
        (Compression::Plain, ""),
    ];

    #[test]
    fn best_that_the_kernel_takes_is_chosen() {
        let check = |config: &str, expect| {
            assert_eq!(Compression::for_kernel(Some(&KernelConfig::parse(config))), expect);
        };
        check("CONFIG_RD_GZIP=y\nCONFIG_RD_XZ=y\nCONFIG_RD_ZSTD=y\n", Compression::Zstd);
        check("CONFIG_RD_GZIP=y\nCONFIG_RD_XZ=y\n# CONFIG_RD_ZSTD is not set\n", Compression::Xz);
        check("CONFIG_RD_GZIP=y\n", Compression::Gzip);
        check("", Compression::Plain);
        assert_eq!(Compression::for_kernel(None), Compression::Gzip);
    }

    #[test]
    fn what_was_compressed_is_read() {
        let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for (compression, suffix) in ALL {
            let mut last = 0;
            let packed = compression.compress(&bytes, &mut |done| last = done).unwrap();
            if compression != Compression::Plain {
                assert_eq!(last, bytes.len() as u64, "{suffix}");
                assert!(packed.len() < bytes.len(), "{suffix}");
            }
            let mut read = vec![0; bytes.len()];
            reader(suffix, &packed[..]).unwrap().read_exact(&mut read).unwrap();
            assert!(read == bytes, "{suffix}");
        }
    }

    #[test]
    fn same_bytes_make_same_bytes_of_a_multiple_of_four() {
        for (compression, suffix) in ALL {
            for len in 0..9 {
                let bytes = vec![b'x'; len];
                let packed = compression.compress(&bytes, &mut |_| ()).unwrap();
                assert_eq!(packed.len() % 4, 0, "{suffix} {len}");
                assert_eq!(packed, compression.compress(&bytes, &mut |_| ()).unwrap());
            }
        }
    }

    #[test]
    fn more_than_expected_is_refused() {
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        packed.write_all(&[0; 1000]).unwrap();
        let packed = packed.finish().unwrap();
        assert_eq!(read_all("x.ko.gz", &packed[..], 1000).unwrap(), [0; 1000]);
        let error = read_all("x.ko.gz", &packed[..], 999).unwrap_err();
        assert_eq!(error.to_string(), "more than 999 bytes when unpacked");
    }

    #[test]
    fn other_bytes_are_refused() {
        for (_, suffix) in &ALL[..3] {
            let name = format!("x{suffix}");
            assert!(read_all(&name, &b"no such stream"[..], 1000).is_err(), "{suffix}");
        }
    }
}
