//! The configuration of a lab: its files as text, checked to the end, as [`Settings`] and images.
//!
//! Nothing here reads a file: [`check`] takes their text. So every rule has a test of a few lines.

mod draft;
mod image;
pub(crate) mod keys;
mod nodes;
mod original;
mod reader;
#[cfg(test)]
mod reference;
mod server;
pub(crate) mod skeleton;
mod value;

use std::path::Path;

use boot::{ImageName, Loader};

use self::draft::Draft;
pub(crate) use self::image::ImageConfig;
use super::problem::Problems;
use super::settings::{Reservation, Settings};
use super::yaml::{Node, Value};

/// The server's settings; its presence makes a directory a lab.
pub(crate) const SERVER_FILE: &str = "Boottorrent.yaml";

/// The nodes, if any are known beforehand.
pub(crate) const NODES_FILE: &str = "nodes.yaml";

/// In each image's folder.
pub(crate) const IMAGE_FILE: &str = "config.yaml";

/// The folder of images.
pub(crate) const IMAGES_DIR: &str = "oss";

/// The text of all files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    /// `Boottorrent.yaml`.
    pub(crate) server: String,
    /// `nodes.yaml`, if there is one.
    pub(crate) nodes: Option<String>,
    /// Each folder of `oss/` by name, and its `config.yaml` if it has one that could be read.
    pub(crate) images: Vec<(String, Option<String>)>,
}

/// What a lab's files say.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    pub(crate) settings: Settings,
    /// In the order of their titles, which is that of the menu.
    pub(crate) images: Vec<ImageConfig>,
}

/// What the files of the lab in `dir` say, and everything that is wrong with them. If that has
/// errors, what is returned is good for nothing but to find more of them.
pub(crate) fn check(dir: &Path, texts: &Texts, problems: &mut Problems) -> Configuration {
    let names: Vec<String> = texts.images.iter().map(|(name, _)| name.clone()).collect();
    let images = read_images(&texts.images, problems);
    // An extension is nothing that a node could boot.
    let is_extension = |name: &String| {
        let image = images.iter().find(|image| image.name.as_str() == name);
        image.is_some_and(|image| matches!(image.loader, Loader::Extension { .. }))
    };
    let names: Vec<String> = names.into_iter().filter(|name| !is_extension(name)).collect();
    if names.is_empty() {
        let message = "there is no image: make a folder here with a kernel, an initrd and a \
                       config.yaml (oss/README.md has an example)";
        problems.error(IMAGES_DIR, None, message);
    }
    let draft = read_server(&texts.server, problems);
    let server = draft.address.as_ref().map(|address| address.value);
    let around = nodes::Surroundings { images: &names, server };
    let nodes_root =
        texts.nodes.as_ref().and_then(|text| reader::parse(NODES_FILE, text, problems));
    let nodes::Named { nodes, groups, ignored } =
        nodes_root.map(|root| nodes::read(&root, &around, problems)).unwrap_or_default();
    let (lease_line, has_wrong_ranges) = (draft.lease_line(), draft.has_wrong_ranges);
    let mut settings = draft.settle(SERVER_FILE, &names, problems);
    settings.dir = dir.to_owned();
    if let Some(tls) = &mut settings.dashboard.tls {
        // From the lab, where they are not absolute.
        (tls.certificate, tls.key) = (dir.join(&tls.certificate), dir.join(&tls.key));
    }
    settings.dhcp.reservations = nodes
        .iter()
        .filter_map(|node| {
            let hostname = Some(node.name.clone());
            node.address.map(|address| Reservation { mac: node.mac, address, hostname })
        })
        .collect();
    settings.nodes = nodes;
    settings.groups = groups;
    settings.ignored = ignored;
    if !has_wrong_ranges {
        Draft::check_leases(&settings, lease_line, problems);
    }
    image::check_drivers(&images, &settings.phase1.modules, problems);
    Configuration { settings, images }
}

fn read_images(texts: &[(String, Option<String>)], problems: &mut Problems) -> Vec<ImageConfig> {
    let mut images = vec![];
    for (folder, text) in texts {
        let name = folder.parse::<ImageName>();
        if let Err(error) = &name {
            problems.error(&format!("{IMAGES_DIR}/{folder}"), None, error.to_string());
        }
        let Some(text) = text else { continue };
        let file = image_file(folder);
        if let (Some(root), Ok(name)) = (reader::parse(&file, text, problems), &name) {
            images.extend(image::read(&file, name, &root, problems));
        }
    }
    images.sort_by(|a, b| (&a.title, &a.name).cmp(&(&b.title, &b.name)));
    image::check_titles(&images, problems);
    image::check_extensions(&images, problems);
    images
}

/// By the format that the file says it has.
fn read_server(text: &str, problems: &mut Problems) -> Draft {
    let empty = || {
        let mut draft = Draft::empty(["dhcp.ranges", "boot.default"]);
        // Nothing is known of them.
        draft.has_wrong_ranges = true;
        draft
    };
    let Some(root) = reader::parse(SERVER_FILE, text, problems) else { return empty() };
    let version = entry(&root, "version");
    match version.map(|node| (node.line, &node.value)) {
        Some((_, Value::Scalar(text))) if text == "1" => server::read(SERVER_FILE, &root, problems),
        // The original has its version in the section.
        _ if entry(&root, "boottorrent").is_some() => original::read(SERVER_FILE, &root, problems),
        None => {
            let message = "the format is missing: write `version: 1` at the top";
            problems.error(SERVER_FILE, Some(1), message);
            server::read(SERVER_FILE, &with_version(root), problems)
        }
        Some((line, _)) => {
            let message = "this program reads format 1, and 0 of the original with its section \
                           `boottorrent`: write `version: 1`, or update this program";
            problems.error(SERVER_FILE, Some(line), message);
            empty()
        }
    }
}

fn entry<'a>(root: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &root.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

/// So that what is missing is not told twice.
fn with_version(mut root: Node) -> Node {
    let version = Node { line: 1, value: Value::Scalar("1".to_owned()) };
    let version = super::yaml::Entry { key: "version".to_owned(), line: 1, node: version };
    match &mut root.value {
        Value::Map(entries) => entries.push(version),
        Value::Null => root.value = Value::Map(vec![version]),
        _ => {}
    }
    root
}

/// Whether a node can be called so.
pub(crate) fn is_label(name: &str) -> bool {
    let node = Node { line: 1, value: Value::Scalar(name.to_owned()) };
    // What is read is trimmed.
    name.trim() == name && <value::Label as value::FromYaml>::from_yaml(&node).is_ok()
}

/// Whether a machine can have this identifier.
pub(crate) fn is_uuid(text: &str) -> bool {
    let node = Node { line: 1, value: Value::Scalar(text.to_owned()) };
    <super::group::Uuid as value::FromYaml>::from_yaml(&node).is_ok()
}

/// Whether words can stand on a command line.
pub(crate) fn is_cmdline(text: &str) -> bool {
    let node = Node { line: 1, value: Value::Scalar(text.to_owned()) };
    <value::Cmdline as value::FromYaml>::from_yaml(&node).is_ok()
}

/// The path of an image's `config.yaml`, as problems name it.
pub(crate) fn image_file(folder: &str) -> String {
    format!("{IMAGES_DIR}/{folder}/{IMAGE_FILE}")
}

#[cfg(test)]
mod tests;
