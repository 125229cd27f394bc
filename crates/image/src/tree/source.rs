//! Where the files of an image come from, in one word: `packages:debian`, `tar:/srv/root.tar.zst`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::root::Root;
use crate::data::{ImageData, LivenetType};
use crate::error::ImageError;
use crate::host;

/// Whose packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian, by mmdebstrap.
    Debian,
    /// Ubuntu, by mmdebstrap.
    Ubuntu,
    /// Red Hat Enterprise Linux and its kin, by dnf.
    Rpm,
}

/// Where files come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Packages of a distribution.
    Packages(Family),
    /// A folder with a whole system.
    Directory(PathBuf),
    /// An archive of one, compressed or not.
    Tar(PathBuf),
    /// One that is a squashfs already.
    Squashfs(PathBuf),
    /// A container's image: an OCI layout, as a folder or archive, or what `docker save` writes.
    Oci(PathBuf),
}

impl FromStr for Source {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let wrong = || {
            ImageError::Wrong(format!(
                "`{text}` is no source: write packages:debian, packages:ubuntu, packages:rpm, \
                 directory:PATH, tar:FILE, squashfs:FILE or oci:PATH"
            ))
        };
        let (word, rest) = text.split_once(':').ok_or_else(wrong)?;
        Ok(match (word, rest) {
            ("packages", "debian") => Self::Packages(Family::Debian),
            ("packages", "ubuntu") => Self::Packages(Family::Ubuntu),
            ("packages", "rpm") => Self::Packages(Family::Rpm),
            (_, "") => return Err(wrong()),
            ("directory", path) => Self::Directory(path.into()),
            ("tar", path) => Self::Tar(path.into()),
            ("squashfs", path) => Self::Squashfs(path.into()),
            ("oci", path) => Self::Oci(path.into()),
            _ => return Err(wrong()),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages(Family::Debian) => write!(f, "packages:debian"),
            Self::Packages(Family::Ubuntu) => write!(f, "packages:ubuntu"),
            Self::Packages(Family::Rpm) => write!(f, "packages:rpm"),
            Self::Directory(path) => write!(f, "directory:{}", path.display()),
            Self::Tar(path) => write!(f, "tar:{}", path.display()),
            Self::Squashfs(path) => write!(f, "squashfs:{}", path.display()),
            Self::Oci(path) => write!(f, "oci:{}", path.display()),
        }
    }
}

impl Source {
    /// Bytes that the tree and what is made of it need at most, about.
    ///
    /// # Errors
    /// If the source is not there.
    pub(super) fn space(&self, data: &ImageData) -> Result<u64, ImageError> {
        // What compresses to a third unpacks to three times, and is packed once more.
        let packed = |path: &Path| {
            let metadata = host::metadata(path).map_err(ImageError::read(path))?;
            Ok(match metadata.is_dir() {
                true => Root::open(path)?.content()?.saturating_mul(4),
                false => metadata.len().saturating_mul(4),
            })
        };
        match self {
            // Estimates with room to spare, packages as they are downloaded included.
            Self::Packages(_) => Ok(match data.livenet_type.unwrap_or_default() {
                LivenetType::Standard => 3 << 30,
                LivenetType::Small => 2 << 30,
                LivenetType::Core => 3 << 29,
            }),
            Self::Directory(path) => Ok(Root::open(path)?.content()?.saturating_mul(3) / 2),
            Self::Tar(path) | Self::Squashfs(path) | Self::Oci(path) => packed(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn sources_are_written_as_they_are_read() {
        for text in ["packages:debian", "packages:ubuntu", "packages:rpm", "tar:/a:b", "oci:x"] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        for text in ["", "packages", "packages:gentoo", "tar:", "floppy:/dev/fd0"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_with_two_names_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("a"), [0; 1000]).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("sub/b")).unwrap();
        fs::write(dir.path().join("sub/c"), [0; 10]).unwrap();
        assert_eq!(Root::open(dir.path()).unwrap().content().unwrap(), 1010);
    }
}
