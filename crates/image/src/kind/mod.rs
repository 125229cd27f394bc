//! The kinds of images, each in a file of its own; [`ALL`] is the registry. A new kind is one file
//! and one line here; `docs/writing-an-image-kind.md` walks through [`demo`].

pub mod livenet;

pub mod nfs;

pub mod demo;

use std::path::Path;

use crate::catalogue::{Build, Catalogue};
use crate::command::Work;
use crate::data::ImageData;
use crate::error::ImageError;
use crate::host;

/// All kinds, in the order in which they are offered.
pub const ALL: &[&dyn Kind] = &[&livenet::Livenet, &nfs::Staging, &nfs::Golden, &demo::Demo];

/// What makes images of one sort.
pub trait Kind: Sync {
    /// What people call it: `livenet`.
    fn name(&self) -> &'static str;

    /// What `image_data.yml` calls it: `LivenetImage`.
    fn class(&self) -> &'static str;

    /// What it is for, in a line.
    fn about(&self) -> &'static str;

    /// Makes all files of a new image in `build.output()`, `config.yaml` apart, from what `data`
    /// says; notes there what it decided itself.
    ///
    /// # Errors
    /// If it cannot; whatever is in the build's folders is then removed.
    fn create(
        &self,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError>;

    /// Removes what an unfinished build may have left outside the build's folders. Called for
    /// builds that failed, too, at whatever step.
    ///
    /// # Errors
    /// If something cannot be removed.
    fn clean(&self, _catalogue: &Catalogue, _name: &str) -> Result<(), ImageError> {
        Ok(())
    }

    /// Removes what a whole image has outside `oss/NAME` and `state/images/NAME`.
    ///
    /// # Errors
    /// If something cannot be removed.
    fn remove(&self, _catalogue: &Catalogue, _data: &ImageData) -> Result<(), ImageError> {
        Ok(())
    }

    /// Makes the files of a copy in `build.output()`. `data` is that of the image that is copied,
    /// already with the copy's name.
    ///
    /// # Errors
    /// If it cannot.
    fn copy(
        &self,
        from: &str,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError>;

    /// How nodes boot it.
    fn boot_entry(&self, data: &ImageData) -> BootEntry;
}

/// How nodes boot an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootEntry {
    /// `config.yaml`: for our agent.
    pub config: String,
    /// `boot.ipxe`: for iPXE and an initramfs of the distribution, if it can be booted so.
    pub script: Option<String>,
}

/// Gives a file that is never written to a second name, or copies it where that cannot be.
fn place_file(from: &Path, to: &Path) -> Result<(), ImageError> {
    host::hard_link(from, to)
        .or_else(|_| host::copy(from, to).map(drop))
        .map_err(ImageError::write(to))
}

/// A script for iPXE with a kernel of the lab and the distribution's initramfs. `before` and `root`
/// stand before the words of consoles and nodes, which iPXE's settings have, `after` at the end.
fn script(data: &ImageData, before: &str, root: &str, after: &str) -> String {
    let kernel = data.kernel_version().unwrap_or_default();
    // The port is that of a lab where nothing else is said; a menu can set the variable.
    format!(
        "#!ipxe\n\
         isset ${{boottorrent}} || set boottorrent http://${{next-server}}:8080\n\
         set image-kernel {kernel}\n\
         echo Image {name}, kernel ${{image-kernel}}, console ${{eq-console}}\n\
         kernel ${{boottorrent}}/kernels/${{image-kernel}}/vmlinuz initrd=initramfs.img \
         {before}{root} ${{eq-console}} ${{eq-kernel-parameters}} ${{dedicated-kernel-parameters}} \
         rd.net.timeout.carrier=30 rd.net.timeout.ifup=60 rd.net.dhcp.retry=4{after}\n\
         initrd ${{boottorrent}}/kernels/${{image-kernel}}/initramfs.img\n\
         boot\n",
        name = data.name
    )
}

/// What the menu of nodes shows of an image, as a text of YAML.
fn title(data: &ImageData) -> String {
    yaml(data.dispname.as_deref().unwrap_or(&data.name))
}

/// A text as YAML: JSON's texts are YAML's, too.
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The kind that people call so.
///
/// # Errors
/// If there is none.
pub fn named(name: &str) -> Result<&'static dyn Kind, ImageError> {
    let kind = ALL.iter().copied().find(|kind| kind.name() == name);
    kind.ok_or_else(|| ImageError::NoSuchKind(name.to_owned()))
}

/// The kind that `image_data.yml` calls so.
pub fn of_class(class: &str) -> Option<&'static dyn Kind> {
    ALL.iter().copied().find(|kind| kind.class() == class)
}

/// What kinds there are, for a person.
pub fn names() -> String {
    ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_classes_are_each_one_kind_s() {
        for kind in ALL {
            assert_eq!(named(kind.name()).unwrap().class(), kind.class());
            assert_eq!(of_class(kind.class()).unwrap().name(), kind.name());
        }
        let error = named("livnet").err().unwrap().to_string();
        assert!(error.contains("`livnet`") && error.contains("demo"), "{error}");
    }
}
