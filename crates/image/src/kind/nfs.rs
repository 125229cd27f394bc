//! Images whose root stays on an NFS server: a staging tree, in which one tries things out, golden
//! images made of one, and for each node of a golden image a tree of its own.
//!
//! ```text
//! state/nfs/staging/NAME/            the tree
//! state/nfs/golden/NAME/image/       the tree that nodes get copies of
//! state/nfs/golden/NAME/nodes/NODE/  a node's own
//! ```

use std::path::{Path, PathBuf};

use super::{BootEntry, Kind, script, title, yaml};
use crate::catalogue::{Build, Catalogue, names_in, remove_tree};
use crate::command::Work;
use crate::data::ImageData;
use crate::error::ImageError;
use crate::host;
use crate::tree;
use crate::tree::root::Tree;

/// The attribute that names the staging image of which a golden one is made.
pub const STAGING: &str = "staging";

/// What nodes mount with.
const OPTIONS: &str = "vers=4.2,rw";

/// A tree in which one tries things out.
pub struct Staging;

/// A tree that nodes have copies of.
pub struct Golden;

/// The folder of all trees of a class.
fn folder(lab: &Path, class: &str) -> PathBuf {
    lab.join("state/nfs").join(class)
}

/// The tree of a staging image.
pub fn staging_tree(lab: &Path, name: &str) -> PathBuf {
    folder(lab, "staging").join(name)
}

/// The tree of a golden image.
pub fn golden_tree(lab: &Path, name: &str) -> PathBuf {
    folder(lab, "golden").join(name).join("image")
}

/// The trees of a golden image's nodes.
pub fn nodes_dir(lab: &Path, name: &str) -> PathBuf {
    folder(lab, "golden").join(name).join("nodes")
}

impl Kind for Staging {
    fn name(&self) -> &'static str {
        "nfs"
    }

    fn class(&self) -> &'static str {
        "NfsStagingImage"
    }

    fn about(&self) -> &'static str {
        "a system on an NFS server, to try things out in; golden images are made of it"
    }

    fn create(
        &self,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        let tree = Tree::new(build.scratch("tree"));
        tree::make(&tree, build, data, work)?;
        let place = staging_tree(build.catalogue().lab(), build.name());
        settle(tree.whole(), &place)?;
        data.nfs_directory = Some(place.display().to_string());
        Ok(())
    }

    fn clean(&self, catalogue: &Catalogue, name: &str) -> Result<(), ImageError> {
        unless_whole(catalogue, name, &staging_tree(catalogue.lab(), name))
    }

    fn remove(&self, catalogue: &Catalogue, data: &ImageData) -> Result<(), ImageError> {
        remove_tree(&staging_tree(catalogue.lab(), &data.name))
    }

    fn copy(
        &self,
        from: &str,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        let lab = build.catalogue().lab().to_owned();
        let place = staging_tree(&lab, build.name());
        copy_tree(&staging_tree(&lab, from), &place, build, work)?;
        data.nfs_directory = Some(place.display().to_string());
        Ok(())
    }

    fn boot_entry(&self, data: &ImageData) -> BootEntry {
        entry(data, "")
    }
}

impl Kind for Golden {
    fn name(&self) -> &'static str {
        "nfs-golden"
    }

    fn class(&self) -> &'static str {
        "NfsGoldenImage"
    }

    fn about(&self) -> &'static str {
        "a system on an NFS server, of which each node has a tree of its own"
    }

    fn create(
        &self,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        let catalogue = build.catalogue();
        let Some(staging) = data.attributes.get(STAGING).cloned() else {
            return Err(ImageError::Wrong(
                "a golden image is made of a staging image: name it with --staging".to_owned(),
            ));
        };
        let from = catalogue.data(&staging)?;
        if from.image_class != Staging.class() {
            return Err(ImageError::Wrong(format!("`{staging}` is no NFS staging image")));
        }
        // As the original: what the tree holds is what is known of it.
        data.kernel = from.kernel;
        data.password = from.password;
        data.additional_packages = from.additional_packages;
        data.release_version = from.release_version;
        data.nfs_server = data.nfs_server.take().or(from.nfs_server);
        let lab = catalogue.lab();
        copy_tree(&staging_tree(lab, &staging), &golden_tree(lab, build.name()), build, work)?;
        let nodes = nodes_dir(lab, build.name());
        host::create_closed_dir(&nodes).map_err(ImageError::write(&nodes))?;
        data.nfs_directory = Some(nodes.display().to_string());
        Ok(())
    }

    fn clean(&self, catalogue: &Catalogue, name: &str) -> Result<(), ImageError> {
        unless_whole(catalogue, name, &folder(catalogue.lab(), "golden").join(name))
    }

    fn remove(&self, catalogue: &Catalogue, data: &ImageData) -> Result<(), ImageError> {
        remove_tree(&folder(catalogue.lab(), "golden").join(&data.name))
    }

    fn copy(
        &self,
        from: &str,
        build: &Build<'_>,
        data: &mut ImageData,
        work: &Work<'_>,
    ) -> Result<(), ImageError> {
        let lab = build.catalogue().lab().to_owned();
        let golden = folder(&lab, "golden");
        // All nodes' trees with it, as the original does.
        copy_tree(&golden.join(from), &golden.join(build.name()), build, work)?;
        data.nfs_directory = Some(nodes_dir(&lab, build.name()).display().to_string());
        Ok(())
    }

    fn boot_entry(&self, data: &ImageData) -> BootEntry {
        entry(data, "/{node}")
    }
}

fn entry(data: &ImageData, below: &str) -> BootEntry {
    let path = data.nfs_directory.as_deref().unwrap_or_default();
    let server = data.nfs_server.as_deref().unwrap_or_default();
    let mut config = format!("dispname: {}\nmethod: nfs\n", title(data));
    config.push_str(&format!("root: {}\n", yaml(&format!("{server}:{path}{below}"))));
    config.push_str(&format!("options: {OPTIONS}\n"));
    if let Some(version) = data.kernel_version() {
        config.push_str(&format!("kernel_version: {version}\n"));
    }
    if let Some(cmdline) = &data.cmdline {
        config.push_str(&format!("cmdline: {}\n", yaml(cmdline)));
    }
    let below = below.replace("{node}", "${hostname}");
    let root = format!("root=nfs:${{next-server}}:{path}{below},{OPTIONS} rw");
    BootEntry { config, script: Some(script(data, "selinux=0 text=1 ", &root, "")) }
}

/// Moves a finished tree to where it is exported.
fn settle(tree: &Path, place: &Path) -> Result<(), ImageError> {
    let parent = place.parent().unwrap_or(place);
    host::create_closed_dir(parent).map_err(ImageError::write(parent))?;
    host::rename(tree, place).map_err(ImageError::write(place))
}

/// Copies a tree; where the file system can, blocks are shared until one of the two changes them.
fn copy_tree(from: &Path, to: &Path, build: &Build<'_>, work: &Work<'_>) -> Result<(), ImageError> {
    crate::command::need_root("copying a tree of files that belong to root")?;
    work.step("copying the tree")?;
    let from = Tree::new(from).root()?;
    build.catalogue().need_space(from.content()?)?;
    let new = Tree::new(build.scratch("copy"));
    tree::copy(from.folder(".")?, &new, work)?;
    settle(new.whole(), to)
}

/// Removes the tree of a build that was never published.
fn unless_whole(catalogue: &Catalogue, name: &str, tree: &Path) -> Result<(), ImageError> {
    match host::exists(&catalogue.folder(name)) {
        true => Ok(()),
        false => remove_tree(tree),
    }
}

/// Gives nodes trees of their own; those that got one.
///
/// # Errors
/// If the disk has no room for all, or a copy fails; nodes that have theirs keep it.
pub fn add_nodes(
    catalogue: &Catalogue,
    name: &str,
    nodes: &[String],
    work: &Work<'_>,
) -> Result<Vec<String>, ImageError> {
    crate::command::need_root("copying a tree of files that belong to root")?;
    let mut data = golden(catalogue, name)?;
    let dir = nodes_dir(catalogue.lab(), name);
    let new: Vec<_> = nodes.iter().filter(|node| !host::exists(&dir.join(node))).cloned().collect();
    let from = Tree::new(golden_tree(catalogue.lab(), name)).root()?;
    catalogue.need_space(from.content()?.saturating_mul(new.len() as u64))?;
    for node in &new {
        work.step(&format!("copying the tree for {node}"))?;
        // Under a name that no node can have, until it is whole; a killed copy is begun anew.
        let part = dir.join(format!(".{node}"));
        remove_tree(&part)?;
        tree::copy(from.folder(".")?, &Tree::new(&part), work)?;
        host::rename(&part, &dir.join(node)).map_err(ImageError::write(&part))?;
    }
    data.nodes = names_in(&dir)?;
    data.write(&catalogue.folder(name))?;
    Ok(new)
}

/// Removes the trees of nodes.
///
/// # Errors
/// If a node has none, then no tree is removed; or one cannot be removed.
pub fn remove_nodes(catalogue: &Catalogue, name: &str, nodes: &[String]) -> Result<(), ImageError> {
    let mut data = golden(catalogue, name)?;
    let dir = nodes_dir(catalogue.lab(), name);
    if let Some(unknown) = nodes.iter().find(|node| !data.nodes.contains(node)) {
        return Err(ImageError::Wrong(format!(
            "node `{unknown}` has no tree of `{name}`; {} have: `boottorrent image nodes list`",
            data.nodes.len()
        )));
    }
    for node in nodes {
        remove_tree(&dir.join(node))?;
    }
    data.nodes = names_in(&dir)?;
    data.write(&catalogue.folder(name))
}

/// What is known of a golden image.
fn golden(catalogue: &Catalogue, name: &str) -> Result<ImageData, ImageError> {
    catalogue.clean()?;
    catalogue.refuse_busy(name)?;
    let data = catalogue.data(name)?;
    match data.image_class == Golden.class() {
        true => Ok(data),
        false => Err(ImageError::Wrong(format!("`{name}` is no golden NFS image"))),
    }
}

/// The lines of an exports file for these images: of each its folder, for all who ask, as the
/// original exports it. One that is the lab's alone is written whole each time, so that it can be
/// neither wrong nor double.
pub fn exports(images: &[ImageData]) -> String {
    let mut text = String::from("# Written by boottorrent; what is changed here is lost.\n");
    for data in images {
        if let Some(path) = &data.nfs_directory {
            text.push_str(&format!("\"{path}\" *(rw,no_root_squash,sync,no_subtree_check)\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(path: &str) -> ImageData {
        ImageData {
            name: "lab".to_owned(),
            kernel: Some("6.1.0".to_owned()),
            nfs_server: Some("10.0.0.1".to_owned()),
            nfs_directory: Some(path.to_owned()),
            ..ImageData::default()
        }
    }

    #[test]
    fn a_node_of_a_golden_image_mounts_its_own_tree() {
        let entry = Golden.boot_entry(&data("/srv/nodes"));
        assert_eq!(
            entry.config,
            "dispname: \"lab\"\nmethod: nfs\nroot: \"10.0.0.1:/srv/nodes/{node}\"\n\
             options: vers=4.2,rw\nkernel_version: 6.1.0\n"
        );
        let script = entry.script.unwrap();
        let root = "initrd=initramfs.img selinux=0 text=1 \
                    root=nfs:${next-server}:/srv/nodes/${hostname},vers=4.2,rw rw ${eq-console}";
        assert!(script.contains(root), "{script}");
    }

    #[test]
    fn a_staging_image_is_mounted_as_it_is() {
        let entry = Staging.boot_entry(&data("/srv/a"));
        assert!(entry.config.contains("root: \"10.0.0.1:/srv/a\"\n"), "{}", entry.config);
        let script = entry.script.unwrap();
        assert!(script.contains("root=nfs:${next-server}:/srv/a,vers=4.2,rw rw "), "{script}");
        assert!(script.contains("rd.net.dhcp.retry=4\n"), "{script}");
    }

    #[test]
    fn exports_are_what_is_there_and_no_more() {
        let text = exports(&[data("/srv/a b"), ImageData::default()]);
        assert_eq!(
            text.lines().skip(1).collect::<Vec<_>>(),
            ["\"/srv/a b\" *(rw,no_root_squash,sync,no_subtree_check)"]
        );
        assert_eq!(exports(&[]).lines().count(), 1);
    }
}
