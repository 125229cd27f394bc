//! Live images: a whole system in a squashfs, which the agent lays under a tmpfs and switches its
//! root to, on the kernel that runs already.

use std::fs::File;

use super::{BootEntry, Kind, place_file, title, yaml};
use crate::catalogue::{Build, Catalogue};
use crate::command::Work;
use crate::data::ImageData;
use crate::error::ImageError;
use crate::host;
use crate::tree::root::{Root, Tree};
use crate::tree::{self, squash};

/// The file of the image.
pub const ROOT_FILE: &str = "squashfs.img";

/// Where a live image is kept until it is packed.
pub(crate) const TREE: &str = "tree";

/// A system in memory.
pub struct Livenet;

impl Kind for Livenet {
    fn name(&self) -> &'static str {
        "livenet"
    }

    fn class(&self) -> &'static str {
        "LivenetImage"
    }

    fn about(&self) -> &'static str {
        "a system that runs from memory, as its image comes through the swarm"
    }

    fn create(
        &self,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        let tree = Tree::new(build.scratch(TREE));
        tree::make(&tree, build, data, work)?;
        pack(&tree, build, data, work)
    }

    fn copy(
        &self,
        from: &str,
        build: &Build<'_>,
        _data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        work.step("copying")?;
        // A version is never written to, so two of them may be one file on the disk.
        let from = build.catalogue().folder(from).join(ROOT_FILE);
        place_file(&from, &build.output().join(ROOT_FILE))
    }

    fn boot_entry(&self, data: &ImageData) -> BootEntry {
        let mut config =
            format!("dispname: {}\nmethod: livenet\nrootfs: {ROOT_FILE}\n", title(data));
        if let Some(version) = data.kernel_version() {
            config.push_str(&format!("kernel_version: {version}\n"));
        }
        if let Some(cmdline) = &data.cmdline {
            config.push_str(&format!("cmdline: {}\n", yaml(cmdline)));
        }
        BootEntry { config, script: Some(script(data)) }
    }
}

/// The packed tree of an image, which may be anything by now that is not a plain file.
pub(crate) fn packed(catalogue: &Catalogue, name: &str) -> Result<File, ImageError> {
    let folder = catalogue.folder(name);
    let root = Root::without_links(&folder).map_err(ImageError::read(&folder))?;
    root.file(ROOT_FILE)
}

/// Packs a finished tree, if it fits.
pub(crate) fn pack(
    tree: &Tree,
    build: &Build<'_>,
    data: &ImageData,
    work: &Work<'_>,
) -> Result<(), ImageError> {
    let bytes = tree.root()?.content()?;
    if let Some(size) = data.livenet_size
        && bytes > size.bytes()
    {
        return Err(ImageError::TooLarge {
            name: build.name().to_owned(),
            content_mb: bytes >> 20,
            size_mb: size.megabytes(),
        });
    }
    // What compresses badly takes as much again.
    build.catalogue().need_space(bytes)?;
    let file = build.output().join(ROOT_FILE);
    squash::pack(tree, &file, work)?;
    host::metadata(&file).map(drop).map_err(ImageError::read(&file))
}

/// What the original had no need of: its squashfs held a file system, ours is the tree, over which dracut lays
/// a file system in memory only if it is told so (dracut.cmdline(7)).
const OVERLAY: &str = "rd.live.overlay.overlayfs=1";

/// The script for iPXE: dracut's `root=live:` by HTTP, with the arguments of the original.
fn script(data: &ImageData) -> String {
    let root = format!("live:${{boottorrent}}/images/{}/{ROOT_FILE}", data.name);
    let selinux = u8::from(data.selinux);
    super::script(data, "", &format!("root={root} rw"), &format!(" selinux={selinux} {OVERLAY}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> ImageData {
        ImageData {
            name: "lab".to_owned(),
            dispname: Some("Debian: for \"all\"".to_owned()),
            kernel: Some("6.1.0-40-amd64".to_owned()),
            cmdline: Some("quiet".to_owned()),
            selinux: true,
            ..ImageData::default()
        }
    }

    #[test]
    fn the_configuration_has_what_the_agent_needs() {
        let expect = "dispname: \"Debian: for \\\"all\\\"\"\nmethod: livenet\nrootfs: squashfs.img\n\
                      kernel_version: 6.1.0-40-amd64\ncmdline: \"quiet\"\n";
        assert_eq!(Livenet.boot_entry(&data()).config, expect);
    }

    #[test]
    fn the_script_has_the_arguments_of_the_original_in_their_order() {
        let expect = "#!ipxe\n\
            isset ${boottorrent} || set boottorrent http://${next-server}:8080\n\
            set image-kernel 6.1.0-40-amd64\n\
            echo Image lab, kernel ${image-kernel}, console ${eq-console}\n\
            kernel ${boottorrent}/kernels/${image-kernel}/vmlinuz initrd=initramfs.img \
            root=live:${boottorrent}/images/lab/squashfs.img rw ${eq-console} \
            ${eq-kernel-parameters} ${dedicated-kernel-parameters} rd.net.timeout.carrier=30 \
            rd.net.timeout.ifup=60 rd.net.dhcp.retry=4 selinux=1 \
            rd.live.overlay.overlayfs=1\n\
            initrd ${boottorrent}/kernels/${image-kernel}/initramfs.img\n\
            boot\n";
        assert_eq!(Livenet.boot_entry(&data()).script.as_deref(), Some(expect));
    }
}
