//! `nodes.yaml`: nodes by name, and groups of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use boot::image::CMDLINE_LEN_MAX;
use boot::{ImageName, Mac};

use super::NODES_FILE as FILE;
use super::keys::{self, Key};
use super::reader::Reader;
use super::value::{Cmdline, Found, FromYaml as _, Label, nearest};
use crate::lab::problem::Problems;
use crate::lab::settings::{BootFrom, NodeSettings};
use crate::lab::yaml::{Entry, Node, Value};

/// What a node must agree with.
pub(super) struct Surroundings<'a> {
    /// The images' folders.
    pub(super) images: &'a [String],
    /// The server's own address.
    pub(super) server: Option<Ipv4Addr>,
}

struct Group {
    image: Option<ImageName>,
    cmdline: String,
}

/// What the file says.
#[derive(Default)]
pub(super) struct Named {
    /// The nodes that can be used, in the order of the file.
    pub(super) nodes: Vec<NodeSettings>,
    pub(super) ignored: Vec<Mac>,
}

/// Reads the file.
pub(super) fn read(root: &Node, around: &Surroundings<'_>, problems: &mut Problems) -> Named {
    let mut reader = Reader::new(FILE, String::new(), root, keys::NODES, problems);
    let (groups_node, nodes_node) = (reader.node("groups"), reader.node("nodes"));
    let ignored = reader.bare("ignored").unwrap_or_default();
    let mut groups = BTreeMap::new();
    for (name, entry) in named(groups_node, "groups", problems) {
        let mut reader = below("groups", entry, keys::GROUP, problems);
        let image = image(&mut reader, around);
        let cmdline = reader.bare("cmdline").map_or_else(String::new, |Cmdline(text)| text);
        groups.insert(name, Group { image, cmdline });
    }
    let mut taken = Taken::default();
    let mut nodes = vec![];
    for (name, entry) in named(nodes_node, "nodes", problems) {
        let mut reader = below("nodes", entry, keys::NODE, problems);
        nodes.extend(node(name, &mut reader, around, &groups, &mut taken));
    }
    Named { nodes, ignored }
}

/// What only one node can have.
#[derive(Default)]
struct Taken {
    macs: BTreeMap<Mac, String>,
    addresses: BTreeMap<Ipv4Addr, String>,
}

fn node(
    name: String,
    reader: &mut Reader<'_, '_>,
    around: &Surroundings<'_>,
    groups: &BTreeMap<String, Group>,
    taken: &mut Taken,
) -> Option<NodeSettings> {
    let mac = reader.value::<Mac>("mac");
    let address = reader.value::<Ipv4Addr>("address");
    if let Some(mac) = &mac
        && let Some(other) = taken.macs.insert(mac.value, name.clone())
    {
        reader.error(mac.line, format!("nodes.{name}.mac: {} is also {other}'s", mac.value));
    }
    if let Some(address) = &address {
        if around.server == Some(address.value) {
            let message =
                format!("nodes.{name}.address: {} is the server's own address", address.value);
            reader.error(address.line, message);
        }
        if let Some(other) = taken.addresses.insert(address.value, name.clone()) {
            let message = format!("nodes.{name}.address: {} is also {other}'s", address.value);
            reader.error(address.line, message);
        }
    }
    let group_name = reader.value::<String>("group");
    let group = group_name.as_ref().and_then(|group| match groups.get(&group.value) {
        Some(known) => Some(known),
        None => {
            let near = nearest(&group.value, groups.keys().map(String::as_str));
            let hint = match near {
                Some(near) => format!("is {near} meant?"),
                None => format!("write it under `groups`, such as `{}: {{}}`", group.value),
            };
            let message =
                format!("nodes.{name}.group: there is no group `{}`; {hint}", group.value);
            reader.error(group.line, message);
            None
        }
    });
    let own = image(reader, around);
    let Cmdline(own_cmdline) = reader.bare("cmdline").unwrap_or_default();
    let inherited = group.map_or("", |group| group.cmdline.as_str());
    let cmdline = [inherited, own_cmdline.as_str()].join(" ").trim().to_owned();
    if cmdline.len() > CMDLINE_LEN_MAX {
        let line = reader.line("cmdline");
        let message =
            format!("nodes.{name}.cmdline: with its group's it is longer than {CMDLINE_LEN_MAX}");
        reader.error(line, message);
    }
    Some(NodeSettings {
        name,
        mac: mac?.value,
        group: group_name.map(|group| group.value),
        address: address.map(|address| address.value),
        image: own.or_else(|| group.and_then(|group| group.image.clone())),
        cmdline,
        boot: reader.bare::<BootFrom>("boot").unwrap_or_default(),
    })
}

/// The image of a node or group, which there must be.
fn image(reader: &mut Reader<'_, '_>, around: &Surroundings<'_>) -> Option<ImageName> {
    let Found { value, line } = reader.value::<ImageName>("image")?;
    let names = || around.images.iter().map(String::as_str);
    // Without any image something else is wrong.
    if names().any(|name| name == value.as_str()) || around.images.is_empty() {
        return Some(value);
    }
    let hint = nearest(value.as_str(), names());
    let hint = hint.map(|near| format!("; is {near} meant?")).unwrap_or_default();
    reader.error(line, format!("image: there is no oss/{value}{hint}"));
    None
}

/// The entries of a map whose keys are names.
fn named<'a>(
    node: Option<&'a Node>,
    section: &str,
    problems: &mut Problems,
) -> Vec<(String, &'a Entry)> {
    let Some(node) = node else { return vec![] };
    let Value::Map(entries) = &node.value else {
        let message = format!("{section} is {}: write a line `NAME:` for each", node.kind());
        problems.error(FILE, Some(node.line), message);
        return vec![];
    };
    let mut named = vec![];
    for entry in entries {
        let key = Node { line: entry.line, value: Value::Scalar(entry.key.clone()) };
        match Label::from_yaml(&key) {
            Ok(Label(name)) => named.push((name, entry)),
            Err(message) => problems.error(FILE, Some(entry.line), format!("{section}: {message}")),
        }
    }
    named
}

fn below<'a, 'p>(
    section: &str,
    entry: &'a Entry,
    keys: &'static [Key],
    problems: &'p mut Problems,
) -> Reader<'a, 'p> {
    Reader::new(FILE, format!("{section}.{}.", entry.key), &entry.node, keys, problems)
}
