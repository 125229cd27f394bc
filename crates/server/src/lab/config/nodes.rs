//! `nodes.yaml`: nodes by name, and groups of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use boot::image::CMDLINE_LEN_MAX;
use boot::{Arch, ImageName, Mac};

use super::NODES_FILE as FILE;
use super::keys::{self, Key};
use super::reader::Reader;
use super::value::{Cmdline, Found, FromYaml as _, Label, NodeNames, nearest};
use crate::lab::group::{self, Group, Selector, Uuid};
use crate::lab::problem::Problems;
use crate::lab::settings::{BootFrom, NodeSettings};
use crate::lab::template::{self, Facts, Known, Server, Vars};
use crate::lab::yaml::{Entry, Node, Value};

/// What a node must agree with.
pub(super) struct Surroundings<'a> {
    /// The images' folders.
    pub(super) images: &'a [String],
    /// The server's own address.
    pub(super) server: Option<Ipv4Addr>,
}

/// What the file says.
#[derive(Default)]
pub(super) struct Named {
    /// The nodes that can be used, in the order of the file.
    pub(super) nodes: Vec<NodeSettings>,
    /// In the order of the file: the first that takes a node has it.
    pub(super) groups: Vec<Group>,
    pub(super) ignored: Vec<Mac>,
}

/// Reads the file.
pub(super) fn read(root: &Node, around: &Surroundings<'_>, problems: &mut Problems) -> Named {
    let mut reader = Reader::new(FILE, String::new(), root, keys::NODES, problems);
    let (groups_node, nodes_node) = (reader.node("groups"), reader.node("nodes"));
    let ignored = reader.bare("ignored").unwrap_or_default();
    let mut groups = Groups::default();
    for (name, entry) in named(groups_node, "groups", problems) {
        let mut reader = below("groups", entry, keys::GROUP, problems);
        groups.lines.insert(name.clone(), reader.line("cmdline"));
        groups.all.push(group(name, &mut reader, around));
    }
    let mut taken = Taken::default();
    let mut nodes = vec![];
    for (name, entry) in named(nodes_node, "nodes", problems) {
        let mut reader = below("nodes", entry, keys::NODE, problems);
        nodes.extend(node(name, &mut reader, around, &mut groups, &mut taken));
    }
    Named { nodes, groups: groups.all, ignored }
}

#[derive(Default)]
struct Groups {
    all: Vec<Group>,
    /// Of each, the line of its `cmdline`.
    lines: BTreeMap<String, Option<usize>>,
    /// Those whose `cmdline` is wrong for some node, which is told once.
    told: BTreeSet<String>,
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
    groups: &mut Groups,
    taken: &mut Taken,
) -> Option<NodeSettings> {
    let mac = reader.value::<Mac>("mac");
    let address = reader.value::<Ipv4Addr>("address");
    taken.take(&name, reader, around, (mac.as_ref(), address.as_ref()));
    let (mac, address) = (mac.map(|mac| mac.value), address.map(|address| address.value));
    let uuid = reader.bare::<Uuid>("uuid");
    let arch = reader.bare::<Arch>("arch");
    let own_vars = vars(reader);
    let own_image = image(reader, around);
    let own_boot = reader.bare::<BootFrom>("boot");
    let own_cmdline = reader.bare::<Cmdline>("cmdline").unwrap_or_default();
    let named = reader.value::<String>("group");
    let uuid = uuid.as_ref().map(|uuid| uuid.0.as_str());
    let facts = Facts { name: Some(&name), mac: mac?, address, uuid, arch, group: None };
    let group = match &named {
        Some(group) => by_name(&name, group, reader, &groups.all),
        None => group::of(&groups.all, &facts),
    };
    let mut all_vars = group.map_or_else(Vars::new, |group| group.vars.clone());
    all_vars.extend(own_vars);
    let known = Known {
        node: Facts { group: group.map(|group| group.name.as_str()), ..facts },
        server: Server { address: around.server.unwrap_or(Ipv4Addr::UNSPECIFIED) },
        vars: &all_vars,
    };
    let own = filled(&own_cmdline.0, &known).unwrap_or_else(|error| {
        reader.error(reader.line("cmdline"), format!("nodes.{name}.cmdline: {error}"));
        String::new()
    });
    let inherited = group.map_or(Ok(String::new()), |group| filled(&group.cmdline, &known));
    let inherited = inherited.unwrap_or_else(|error| {
        let group = group.map_or("", |group| group.name.as_str());
        if groups.told.insert(group.to_owned()) {
            let line = groups.lines.get(group).copied().flatten();
            reader.error(line, format!("groups.{group}.cmdline for the node {name}: {error}"));
        }
        String::new()
    });
    let cmdline = [inherited, own].join(" ").trim().to_owned();
    if cmdline.len() > CMDLINE_LEN_MAX {
        let line = reader.line("cmdline");
        let message =
            format!("nodes.{name}.cmdline: with its group's it is longer than {CMDLINE_LEN_MAX}");
        reader.error(line, message);
    }
    Some(NodeSettings {
        mac: mac?,
        uuid: uuid.map(str::to_owned),
        arch,
        group: group.map(|group| group.name.clone()),
        address,
        image: own_image.or_else(|| group.and_then(|group| group.image.clone())),
        cmdline,
        boot: own_boot.or_else(|| group.and_then(|group| group.boot)).unwrap_or_default(),
        vars: all_vars,
        name,
    })
}

impl Taken {
    /// Says what another node has, or the server.
    fn take(
        &mut self,
        name: &str,
        reader: &mut Reader<'_, '_>,
        around: &Surroundings<'_>,
        (mac, address): (Option<&Found<Mac>>, Option<&Found<Ipv4Addr>>),
    ) {
        if let Some(mac) = mac
            && let Some(other) = self.macs.insert(mac.value, name.to_owned())
        {
            reader.error(mac.line, format!("nodes.{name}.mac: {} is also {other}'s", mac.value));
        }
        let Some(address) = address else { return };
        if around.server == Some(address.value) {
            let message =
                format!("nodes.{name}.address: {} is the server's own address", address.value);
            reader.error(address.line, message);
        }
        if let Some(other) = self.addresses.insert(address.value, name.to_owned()) {
            let message = format!("nodes.{name}.address: {} is also {other}'s", address.value);
            reader.error(address.line, message);
        }
    }
}

/// The group that a node names.
fn by_name<'a>(
    name: &str,
    wanted: &Found<String>,
    reader: &mut Reader<'_, '_>,
    groups: &'a [Group],
) -> Option<&'a Group> {
    let found = groups.iter().find(|group| group.name == wanted.value);
    if found.is_none() {
        let near = nearest(&wanted.value, groups.iter().map(|group| group.name.as_str()));
        let hint = match near {
            Some(near) => format!("is {near} meant?"),
            None => format!("write it under `groups`, such as `{}: {{}}`", wanted.value),
        };
        let message = format!("nodes.{name}.group: there is no group `{}`; {hint}", wanted.value);
        reader.error(wanted.line, message);
    }
    found
}

fn group(name: String, reader: &mut Reader<'_, '_>, around: &Surroundings<'_>) -> Group {
    let names: Vec<NodeNames> = reader.bare("match.nodes").unwrap_or_default();
    let selector = Selector {
        macs: reader.bare("match.mac").unwrap_or_default(),
        uuids: reader.bare("match.uuid").unwrap_or_default(),
        archs: reader.bare("match.arch").unwrap_or_default(),
        subnets: reader.bare("match.subnet").unwrap_or_default(),
        names: names.into_iter().flat_map(|NodeNames(names)| names).collect(),
    };
    Group {
        name,
        selector: (!selector.is_empty()).then_some(selector),
        image: image(reader, around),
        cmdline: reader.bare("cmdline").map_or_else(String::new, |Cmdline(text)| text),
        boot: reader.bare("boot"),
        vars: vars(reader),
    }
}

/// A template's text, which must be as good as if it had been written so.
fn filled(text: &str, known: &Known<'_>) -> Result<String, String> {
    let text = template::render(text, known)?;
    let Cmdline(text) = Cmdline::from_yaml(&Node { line: 1, value: Value::Scalar(text) })?;
    Ok(text)
}

/// Variables of a node or a group: a room has a handful.
const VARS_MAX: usize = 64;

/// Bytes of one: a URL with some words behind it.
const VAR_LEN_MAX: usize = 512;

fn vars(reader: &mut Reader<'_, '_>) -> Vars {
    let mut vars = Vars::new();
    let Some(node) = reader.node("vars") else { return vars };
    let Value::Map(entries) = &node.value else {
        reader.error(
            Some(node.line),
            format!("vars is {}: write a line `name: value` for each", node.kind()),
        );
        return vars;
    };
    if entries.len() > VARS_MAX {
        reader.error(
            Some(node.line),
            format!("vars has {} of them; {VARS_MAX} are the limit", entries.len()),
        );
    }
    for entry in entries.iter().take(VARS_MAX) {
        let is_name = entry.key.starts_with(|c: char| c.is_ascii_lowercase())
            && entry.key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        let value = String::from_yaml(&entry.node);
        match value {
            _ if !is_name => {
                let key = &entry.key;
                let message = format!("vars: `{key}` is no name: use small letters, digits and _");
                reader.error(Some(entry.line), message);
            }
            Ok(value) if value.len() > VAR_LEN_MAX => {
                let message = format!("vars.{} is longer than {VAR_LEN_MAX} bytes", entry.key);
                reader.error(Some(entry.line), message);
            }
            Ok(value) => drop(vars.insert(entry.key.clone(), value)),
            Err(message) => reader.error(Some(entry.line), format!("vars.{} {message}", entry.key)),
        }
    }
    vars
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
