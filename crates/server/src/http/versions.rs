//! Images by infohash. One that is no longer on offer, since its files were changed, stays as long as
//! somebody fetches it: a node finishes the version that it began, also by HTTP. As with seeding, that
//! lasts as long as the bytes do: a file that was replaced is still open, one that was overwritten is
//! gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use boot::ImageName;

use super::ImageFiles;

/// How long a version that is not on offer is kept after it was asked for the last time: a node that
/// lost its connections is back within seconds.
pub(crate) const FAREWELL: Duration = Duration::from_secs(60);

/// The most versions that are kept beside those on offer. Each holds its files open, and somebody
/// who goes on asking must not be able to hold what a year of changes left behind.
const RETIRED_MAX: usize = 16;

/// All versions that can be fetched.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<String, Version>);

#[derive(Debug)]
struct Version {
    name: ImageName,
    files: ImageFiles,
    /// Not on offer any more; when it was last asked for.
    retired: Option<Instant>,
}

impl Versions {
    /// These are on offer from now on, and no others.
    pub(super) fn offer(&mut self, images: &BTreeMap<ImageName, ImageFiles>, now: Instant) {
        for version in self.0.values_mut() {
            version.retired = version.retired.or(Some(now));
        }
        for (name, files) in images {
            let (name, files) = (name.clone(), files.clone());
            let infohash = files.infohash().to_owned();
            self.0.insert(infohash, Version { name, files, retired: None });
        }
        self.sweep(now);
    }

    /// The files of an image.
    pub(super) fn find(
        &mut self,
        infohash: &str,
        name: &ImageName,
        now: Instant,
    ) -> Option<ImageFiles> {
        let version = self.0.get_mut(infohash).filter(|version| version.name == *name)?;
        version.retired = version.retired.map(|_| now);
        Some(version.files.clone())
    }

    /// Closes what nobody fetches any more; to be called every few seconds.
    pub(super) fn sweep(&mut self, now: Instant) {
        let is_wanted = |since: Instant| now.saturating_duration_since(since) < FAREWELL;
        self.0.retain(|_, version| version.retired.is_none_or(is_wanted));
        let mut retired: Vec<(Instant, String)> = self
            .0
            .iter()
            .filter_map(|(infohash, version)| Some((version.retired?, infohash.clone())))
            .collect();
        retired.sort();
        let surplus = retired.len().saturating_sub(RETIRED_MAX);
        for (_, infohash) in &retired[..surplus] {
            self.0.remove(infohash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use torrent::metainfo::Metainfo;
    use torrent::metainfo::create::Spec;

    /// A version of the image `debian` with this content.
    fn version(dir: &std::path::Path, content: &str) -> BTreeMap<ImageName, ImageFiles> {
        let folder = dir.join(content).join("debian");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("vmlinuz"), content).unwrap();
        let threads = std::num::NonZeroUsize::MIN;
        let bytes = torrent_io::create::create(&folder, Spec::default(), threads, &|_, _| {});
        let metainfo = Metainfo::decode(&bytes.unwrap()).unwrap();
        let files = ImageFiles::open(&dir.join(content), &metainfo).unwrap();
        [("debian".parse().unwrap(), files)].into()
    }

    fn infohash(images: &BTreeMap<ImageName, ImageFiles>) -> String {
        images.values().next().unwrap().infohash().to_owned()
    }

    #[test]
    fn a_version_stays_while_somebody_fetches_it() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (version(dir.path(), "old"), version(dir.path(), "new"));
        let name = "debian".parse().unwrap();
        let start = Instant::now();
        let mut versions = Versions::default();
        versions.offer(&old, start);
        versions.offer(&new, start);
        let later = start + FAREWELL / 2;
        assert!(versions.find(&infohash(&old), &name, later).is_some());
        assert!(versions.find(&infohash(&old), &"other".parse().unwrap(), later).is_none());
        versions.sweep(start + FAREWELL);
        assert!(versions.find(&infohash(&old), &name, start + FAREWELL).is_some());
        let end = start + FAREWELL * 2;
        versions.sweep(end);
        assert!(versions.find(&infohash(&old), &name, end).is_none());
        assert!(versions.find(&infohash(&new), &name, end).is_some());
    }

    #[test]
    fn a_version_that_is_on_offer_again_is_not_closed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (version(dir.path(), "old"), version(dir.path(), "new"));
        let start = Instant::now();
        let mut versions = Versions::default();
        for images in [&old, &new, &old] {
            versions.offer(images, start);
        }
        let end = start + FAREWELL;
        versions.sweep(end);
        assert!(versions.find(&infohash(&old), &"debian".parse().unwrap(), end).is_some());
    }

    #[test]
    fn only_so_many_versions_are_held_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut versions = Versions::default();
        let start = Instant::now();
        for number in 0..RETIRED_MAX as u32 + 2 {
            let images = version(dir.path(), &number.to_string());
            versions.offer(&images, start + Duration::from_secs(1) * number);
        }
        assert_eq!(versions.0.len(), RETIRED_MAX + 1);
    }
}
