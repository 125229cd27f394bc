//! Debian packages (deb(5)): an `ar` archive whose member `data.tar.*` holds the files.
//!
//! A package may come from anywhere, so everything in it that could be absurd has a limit. The `ar`
//! part is read here rather than by a crate because it is five fields of fixed width, and the crate
//! for it trusts the lengths that it reads.

use std::io::{self, Read};

use super::compression;

/// The most members of a package: `debian-binary`, `control.tar`, `data.tar`, and signatures.
pub const MEMBERS_MAX: usize = 16;

/// The most bytes of a package's files together. Linux 6.12 with all its modules has 500 MB, with
/// debugging symbols 6 GB, and those are of no use here.
pub const FILES_LEN_MAX: u64 = 4 << 30;

/// The most files of a package; a kernel has 5,000.
pub const FILES_MAX: usize = 200_000;

/// The most bytes of a path (`PATH_MAX`).
pub const PATH_LEN_MAX: u64 = 4096;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_LEN: usize = 60;
const HEADER_END: &[u8; 2] = b"`\n";
const DATA: &str = "data.tar";

/// Why a package cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It is not an `ar` archive.
    #[error("it is no Debian package")]
    Magic,
    /// A member's header is not one.
    #[error("it is damaged: a member's header cannot be read")]
    Header,
    /// It has no `data.tar`.
    #[error("it holds no files (no {DATA})")]
    NoData,
    /// It ends early, is damaged, or longer than [`FILES_LEN_MAX`].
    #[error("it is damaged or cut off")]
    Read(#[from] io::Error),
    /// There are too many.
    #[error("it holds more than {FILES_MAX} files")]
    TooManyFiles,
    /// A file would land outside of where it is unpacked.
    #[error("it holds a file with the path `{0}`, which no package has")]
    Path(String),
    /// `dpkg-deb` makes none of these.
    #[error("it holds entries of type {0:?}, which packages do not have")]
    Type(char),
}

/// Calls `each` with the path (relative, without `./`), length and bytes of every regular file of a
/// package, in the order of the package. What is no regular file is passed over.
///
/// # Errors
/// [`DebError`] if it is no package, and whatever `each` returns.
pub fn for_each_file<R, E>(
    package: R,
    mut each: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E>
where
    R: Read,
    E: From<DebError>,
{
    let mut archive = tar::Archive::new(data(package)?.take(FILES_LEN_MAX));
    // Long names are read here, where they have a limit.
    let entries = archive.entries().map_err(DebError::Read)?.raw(true);
    let mut long_name = None;
    for (index, entry) in entries.enumerate() {
        if index == FILES_MAX {
            return Err(DebError::TooManyFiles.into());
        }
        let mut entry = entry.map_err(DebError::Read)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname() {
            long_name = Some(read_name(&mut entry)?);
            continue;
        }
        if kind.is_gnu_longlink() {
            continue;
        }
        // Names in another form would be missed.
        if kind.is_pax_local_extensions() {
            return Err(DebError::Type(char::from(kind.as_byte())).into());
        }
        let name = long_name.take().unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = path(&name)?;
        if kind.is_file() {
            let len = entry.header().entry_size().map_err(DebError::Read)?;
            each(&path, len, &mut entry)?;
        }
    }
    Ok(())
}

/// The decompressed `data.tar`.
fn data<'a, R: Read + 'a>(mut package: R) -> Result<Box<dyn Read + 'a>, DebError> {
    let mut magic = [0; MAGIC.len()];
    if package.read_exact(&mut magic).is_err() || magic != *MAGIC {
        return Err(DebError::Magic);
    }
    for _ in 0..MEMBERS_MAX {
        let mut header = [0; HEADER_LEN];
        match package.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
        let (name, len) = member(&header).ok_or(DebError::Header)?;
        if let Some(suffix) = name.strip_prefix(DATA) {
            return Ok(compression::reader(suffix, package.take(len))?);
        }
        // Members begin at even offsets.
        let len = len + len % 2;
        if io::copy(&mut package.by_ref().take(len), &mut io::sink())? != len {
            break;
        }
    }
    Err(DebError::NoData)
}

/// Name and length: 16 bytes name, 12 time, 6 and 6 owner, 8 mode, 10 length, 2 end.
fn member(header: &[u8; HEADER_LEN]) -> Option<(&str, u64)> {
    let name = str::from_utf8(&header[..16]).ok()?.trim_end_matches([' ', '/']);
    let len = str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok()?;
    (header[58..] == *HEADER_END).then_some((name, len))
}

fn read_name(entry: &mut impl Read) -> Result<Vec<u8>, DebError> {
    let mut name = vec![];
    entry.take(PATH_LEN_MAX + 1).read_to_end(&mut name)?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// `./lib/modules` as `lib/modules`.
fn path(name: &[u8]) -> Result<String, DebError> {
    let refuse = || DebError::Path(String::from_utf8_lossy(name).chars().take(80).collect());
    let text = str::from_utf8(name).map_err(|_| refuse())?;
    let names: Vec<&str> = text.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    let fits = text.len() as u64 <= PATH_LEN_MAX && !text.contains('\0');
    if !fits || text.starts_with('/') || names.contains(&"..") {
        return Err(refuse());
    }
    Ok(names.join("/"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    /// A package of these files, as `dpkg-deb -Zgzip` would make it.
    pub(in crate::phase1) fn package(files: &[(&str, &[u8])]) -> Vec<u8> {
        wrap("data.tar.gz", &gzip(&tarball(files)))
    }

    fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(vec![]);
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            if path.len() < 100 {
                // The crate refuses what we want to see refused.
                header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
                header.set_cksum();
                tar.append(&header, *bytes).unwrap();
            } else {
                tar.append_data(&mut header, path, *bytes).unwrap();
            }
        }
        tar.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn wrap(name: &str, data: &[u8]) -> Vec<u8> {
        let mut deb = MAGIC.to_vec();
        for (name, bytes) in [("debian-binary", b"2.0\n" as &[u8]), ("odd", b"x"), (name, data)] {
            writeln!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len())
                .unwrap();
            deb.extend_from_slice(bytes);
            if bytes.len() % 2 == 1 {
                deb.push(b'\n');
            }
        }
        deb
    }

    fn list(deb: &[u8]) -> Result<Vec<(String, Vec<u8>)>, DebError> {
        let mut files = vec![];
        for_each_file(deb, |path, len, bytes| {
            let mut content = vec![];
            bytes.read_to_end(&mut content)?;
            assert_eq!(len, content.len() as u64);
            files.push((path.to_owned(), content));
            Ok::<_, DebError>(())
        })?;
        Ok(files)
    }

    #[test]
    fn files_are_found_whatever_the_compression() {
        let tar = tarball(&[("./boot/vmlinuz", b"kernel"), ("./empty", b"")]);
        let xz = {
            let mut out = liblzma::write::XzEncoder::new(vec![], 1);
            out.write_all(&tar).unwrap();
            out.finish().unwrap()
        };
        let zstd = zstd::encode_all(&tar[..], 1).unwrap();
        for (name, data) in [
            ("data.tar", tar.clone()),
            ("data.tar.gz", gzip(&tar)),
            ("data.tar.xz", xz),
            ("data.tar.zst", zstd),
        ] {
            let files = list(&wrap(name, &data)).unwrap();
            assert_eq!(
                files,
                [("boot/vmlinuz".to_owned(), b"kernel".to_vec()), ("empty".to_owned(), vec![])],
                "{name}"
            );
        }
    }

    #[test]
    fn long_names_are_whole() {
        let path = format!("lib/modules/{}/x.ko", "long/".repeat(40));
        assert_eq!(list(&package(&[(&path, b"x")])).unwrap()[0].0, path.replace("//", "/"));
        let absurd = format!("x{}", "/long".repeat(1000));
        assert!(matches!(list(&package(&[(&absurd, b"x")])), Err(DebError::Path(_))));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["../etc/passwd", "./lib/../../x", "/etc/passwd"] {
            let error = list(&package(&[(path, b"x")])).unwrap_err();
            assert!(matches!(error, DebError::Path(_)), "{path}: {error}");
        }
    }

    #[test]
    fn other_files_are_no_packages() {
        assert!(matches!(list(b""), Err(DebError::Magic)));
        assert!(matches!(list(b"\x7fELF and so on"), Err(DebError::Magic)));
        assert!(matches!(list(MAGIC), Err(DebError::NoData)));
        assert!(matches!(list(&wrap("control.tar.gz", b"")), Err(DebError::NoData)));
    }

    #[test]
    fn damage_is_noticed() {
        let deb = package(&[("./boot/vmlinuz", &[7; 5000])]);
        assert!(matches!(list(&deb[..deb.len() - 30]), Err(DebError::Read(_))));
        let mut header = deb.clone();
        header[8 + 48] = b'x';
        assert!(matches!(list(&header), Err(DebError::Header)));
        // A length of 9.9 GB with nothing behind it takes neither memory nor time.
        let mut absurd = deb;
        absurd[8 + 48..8 + 58].copy_from_slice(b"9999999999");
        assert!(matches!(list(&absurd), Err(DebError::NoData)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = list(&bytes);
            let _ = list(&wrap("data.tar", &bytes));
        }
    }
}
