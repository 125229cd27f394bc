//! The torrent of an image: read from the initramfs or the server, believed only if its infohash is
//! the one that the signed manifest names.

use boot::{Failure, Image, ImagePath};
use torrent::metainfo::{METAINFO_LEN_MAX, Metainfo, MetainfoError};

use crate::failed::{Fails, chain};
use crate::sources::{Origin, SourceError, Sources};

/// Why there is no torrent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TorrentFailure {
    /// It is nowhere.
    #[error("the torrent of `{image}` is nowhere: {}", errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Unreachable {
        /// Of which image.
        image: String,
        /// What each place said.
        errors: Vec<SourceError>,
    },
    /// It is no torrent.
    #[error("{origin}: this is not the torrent of `{image}`")]
    Malformed {
        /// Where.
        origin: Origin,
        /// Of which image.
        image: String,
        /// What is wrong.
        source: MetainfoError,
    },
    /// It is another torrent.
    #[error(
        "{origin}: the torrent of `{image}` has infohash {found}, the manifest says {expected}"
    )]
    OtherInfohash {
        /// Where.
        origin: Origin,
        /// Of which image.
        image: String,
        /// Of the torrent.
        found: String,
        /// Of the manifest.
        expected: String,
    },
}

impl Fails for TorrentFailure {
    fn failure(&self) -> Failure {
        match self {
            Self::Unreachable { .. } => Failure::DownloadStalled,
            Self::Malformed { .. } | Self::OtherInfohash { .. } => Failure::TorrentAltered,
        }
    }
}

/// The torrent of `image`, and its bytes, from the initramfs or else from the server. What is refused on the way is
/// told to `refused`.
///
/// # Errors
/// If neither has it as the manifest names it.
pub(crate) fn find(
    sources: &Sources,
    image: &Image,
    refused: &mut dyn FnMut(&TorrentFailure),
) -> Result<(Metainfo, Vec<u8>), TorrentFailure> {
    let path = format!("torrents/{}.torrent", image.name);
    let before = match sources.local(&path, METAINFO_LEN_MAX) {
        Ok(bytes) => match judge(Origin::Initramfs, image, &bytes) {
            Ok(metainfo) => return Ok((metainfo, bytes)),
            Err(error) => Ok(error),
        },
        Err(error) => Err(error),
    };
    let origin = Origin::Http(sources.url(&path).unwrap_or_default());
    let image_name = || image.name.to_string();
    match (sources.remote(&path, METAINFO_LEN_MAX), before) {
        (Ok(bytes), before) => {
            if let Ok(error) = before {
                refused(&error);
            }
            judge(origin, image, &bytes).map(|metainfo| (metainfo, bytes))
        }
        (Err(unreachable), Ok(error)) => {
            let errors = vec![unreachable];
            refused(&TorrentFailure::Unreachable { image: image_name(), errors });
            Err(error)
        }
        (Err(unreachable), Err(missing)) => {
            let errors = vec![missing, unreachable];
            Err(TorrentFailure::Unreachable { image: image_name(), errors })
        }
    }
}

fn judge(origin: Origin, image: &Image, bytes: &[u8]) -> Result<Metainfo, TorrentFailure> {
    let metainfo = match Metainfo::decode(bytes) {
        Ok(metainfo) => metainfo,
        Err(source) => {
            let image = image.name.to_string();
            return Err(TorrentFailure::Malformed { origin, image, source });
        }
    };
    // SHA-1 is not asked: whoever can make two files of one SHA-1 could choose between them.
    let found = metainfo.info_hash_v2();
    if found.as_ref().is_some_and(|hash| hash.as_bytes() == image.infohash) {
        return Ok(metainfo);
    }
    Err(TorrentFailure::OtherInfohash {
        origin,
        image: image.name.to_string(),
        found: found.map_or_else(|| "of v1 only".to_owned(), |hash| hash.to_string()),
        expected: boot::hex::encode(&image.infohash),
    })
}

/// Which file of the torrent, by its index in the layout, is `path` within the image; and its
/// length. The image's folder is the torrent's name; an image of one file can be that file alone.
pub(crate) fn file(metainfo: &Metainfo, path: &ImagePath) -> Option<(usize, u64)> {
    let wanted: Vec<&str> = path.as_str().split('/').collect();
    let files = metainfo.layout().files();
    files.iter().enumerate().find_map(|(index, file)| {
        let components = file.path().components();
        let within = match components {
            [name] if files.len() == 1 => std::slice::from_ref(name),
            [_, within @ ..] => within,
            [] => return None,
        };
        (within == wanted).then_some((index, file.len()))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::num::NonZeroUsize;
    use std::path::Path;
    use torrent::metainfo::create::{Format, Spec};

    /// A folder `debian` with these files, and its torrent.
    pub(crate) fn make(dir: &Path, format: Format, files: &[(&str, usize)]) -> (Image, Vec<u8>) {
        let folder = dir.join("debian");
        for (path, len) in files {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![7; *len]).unwrap();
        }
        let spec = Spec { format, ..Spec::default() };
        let bytes =
            torrent_io::create::create(&folder, spec, NonZeroUsize::MIN, &|_, _| {}).unwrap();
        let metainfo = Metainfo::decode(&bytes).unwrap();
        let infohash = metainfo
            .info_hash_v2()
            .map_or([0; 32], |hash| <[u8; 32]>::try_from(hash.as_bytes()).unwrap());
        let image = Image {
            name: "debian".parse().unwrap(),
            title: "Debian".to_owned(),
            description: String::new(),
            password: None,
            len: metainfo.geometry().data_len(),
            infohash,
            loader: boot::Loader::Unknown,
        };
        (image, bytes)
    }

    #[test]
    fn only_the_torrent_that_the_manifest_names_is_taken() {
        let temp = tempfile::tempdir().unwrap();
        let (image, bytes) = make(temp.path(), Format::Hybrid, &[("a", 40_000), ("b", 1)]);
        assert!(judge(Origin::Initramfs, &image, &bytes).is_ok());
        let other = Image { infohash: [1; 32], ..image.clone() };
        let error = judge(Origin::Initramfs, &other, &bytes).unwrap_err();
        assert!(matches!(error, TorrentFailure::OtherInfohash { .. }));
        assert_eq!(error.failure(), Failure::TorrentAltered);
        let error = judge(Origin::Initramfs, &image, &bytes[1..]).unwrap_err();
        assert_eq!(error.failure(), Failure::TorrentAltered);
    }

    #[test]
    fn a_torrent_of_sha1_alone_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (image, bytes) = make(temp.path(), Format::V1, &[("a", 40_000), ("b", 1)]);
        let error = judge(Origin::Initramfs, &image, &bytes).unwrap_err();
        assert!(error.to_string().contains("of v1 only"), "{error}");
    }

    #[test]
    fn files_are_found_by_their_path_in_the_image() {
        let temp = tempfile::tempdir().unwrap();
        let files = [("boot/vmlinuz", 40_000), ("initrd.img", 70_000)];
        let (_, bytes) = make(temp.path(), Format::Hybrid, &files);
        let metainfo = Metainfo::decode(&bytes).unwrap();
        let check = |path: &str, expect: Option<u64>| {
            let found = file(&metainfo, &path.parse().unwrap());
            assert_eq!(found.map(|(_, len)| len), expect, "{path}");
        };
        check("boot/vmlinuz", Some(40_000));
        check("initrd.img", Some(70_000));
        check("vmlinuz", None);
        check("debian/initrd.img", None);
    }
}
