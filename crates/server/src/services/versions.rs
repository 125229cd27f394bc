//! Which versions of built images the disk has: the one that nodes boot, and those kept to go back to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use boot::ImageName;
use image::catalogue::Catalogue;
use image::data::ImageData;

/// How long what was read holds. Anybody may ask, and a dashboard asks every three seconds.
const HOLDS: Duration = Duration::from_secs(2);

/// A version, as far as its image_data.yml can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) number: u32,
    /// The day on which it was made: `2026-05-17`.
    pub(crate) made: Option<String>,
    pub(crate) title: Option<String>,
}

/// Those of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OfImage {
    /// What nodes boot; none of an image that was made by hand.
    pub(crate) current: Option<Version>,
    /// What can be gone back to, the oldest first.
    pub(crate) kept: Vec<Version>,
}

/// Those of all images.
pub(crate) type OfImages = BTreeMap<ImageName, OfImage>;

/// Knows the versions of a lab's images; a copy is another reference.
#[derive(Clone)]
pub(crate) struct Versions(Arc<Inner>);

struct Inner {
    lab: PathBuf,
    read: Mutex<Option<(Instant, Arc<OfImages>)>>,
}

impl Versions {
    pub(crate) fn new(lab: PathBuf) -> Self {
        Self(Arc::new(Inner { lab, read: Mutex::default() }))
    }

    /// Those of these images. May wait for the disk.
    pub(crate) fn of(&self, images: impl FnOnce() -> Vec<ImageName>) -> Arc<OfImages> {
        let mut read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, known)) = &*read
            && at.elapsed() < HOLDS
        {
            return Arc::clone(known);
        }
        let catalogue = Catalogue::new(&self.0.lab);
        let of = |name: ImageName| (name.clone(), of_image(&catalogue, name.as_str()));
        let known: Arc<OfImages> = Arc::new(images().into_iter().map(of).collect());
        *read = Some((Instant::now(), Arc::clone(&known)));
        known
    }

    /// Something has changed: they are read anew for who asks next.
    pub(crate) fn forget(&self) {
        *self.0.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What cannot be read is not known, which is no reason to show none of the others.
fn of_image(catalogue: &Catalogue, name: &str) -> OfImage {
    let current = catalogue.data(name).ok().map(|data| version(data.version, Some(data)));
    let kept = catalogue.versions(name).unwrap_or_default().into_iter();
    let kept =
        kept.map(|(number, folder)| version(number, ImageData::read(&folder).ok().flatten()));
    OfImage { current, kept: kept.collect() }
}

fn version(number: u32, data: Option<ImageData>) -> Version {
    let (made, title) = data.map(|data| (data.creation_date, data.dispname)).unwrap_or_default();
    Version { number, made, title }
}
