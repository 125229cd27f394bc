//! What each node boots, as far as its boot script has to know: which kernel phase 1 runs on, what is
//! added to its command line, or that the disk is booted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use boot::{Arch, ImageName, KernelVersion, Mac, Manifest};

use super::next_boots::NextBoot;
use crate::fleet::ScriptAsked;
use crate::lab::config::is_cmdline;
use crate::lab::group::{self, Group};
use crate::lab::settings::{BootFrom, Settings, Unknown};
use crate::lab::template::{self, Facts, Known, Server};

/// The nodes that a lab names, and how.
pub(crate) fn named(settings: &Settings) -> BTreeMap<Mac, Option<String>> {
    let reserved = settings.dhcp.reservations.iter().map(|r| (r.mac, r.hostname.clone()));
    let nodes = settings.nodes.iter().map(|node| (node.mac, Some(node.name.clone())));
    reserved.chain(nodes).collect()
}

/// What a script does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// Loads this phase 1.
    Phase1(Phase1Boot),
    /// Runs the script of an image.
    Classic(ClassicBoot),
    /// Leaves the node to its disk.
    Disk,
    /// Waits until somebody accepts the node.
    Wait,
    /// Ends the wait of a node that is to be left alone.
    Leave,
    /// Waits for its image, which is being hashed.
    Later(ImageName),
}

/// An image that boots without us, and words for its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassicBoot {
    pub(super) image: ImageName,
    pub(super) cmdline: String,
}

/// A phase 1 and its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Phase1Boot {
    /// On the web server, without a slash at the end.
    pub(super) folder: String,
    /// Added to the lab's.
    pub(super) cmdline: String,
}

/// An image, as a script sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ImageBoot {
    /// The kernel that it is for, if that is not the lab's own.
    version: Option<KernelVersion>,
    cmdline: String,
}

/// What nodes boot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Boots {
    images: BTreeMap<ImageName, ImageBoot>,
    /// Image and words of the nodes for which something is decided.
    nodes: BTreeMap<Mac, (ImageName, String)>,
    /// Nodes whose image is not there yet.
    later: BTreeMap<Mac, ImageName>,
    /// Nodes that boot in another way.
    others: BTreeMap<Mac, BootFrom>,
    /// Nodes that the lab names.
    named: BTreeSet<Mac>,
    /// What the lab says that they are.
    facts: BTreeMap<Mac, (Option<String>, Option<Arch>)>,
    /// Nodes that are left alone though they ask.
    ignored: BTreeSet<Mac>,
    /// What becomes of all others.
    unknown: Unknown,
    /// What they may be in.
    groups: Vec<Group>,
    /// This server's address, for templates.
    server: Option<Ipv4Addr>,
    /// Images that have a script of their own.
    classic: BTreeSet<ImageName>,
    /// What the others boot, and whether nobody is asked.
    default: Option<(ImageName, bool)>,
}

impl Boots {
    /// Those of a lab.
    pub(crate) fn of(
        manifest: &Manifest,
        settings: &Settings,
        classic: BTreeSet<ImageName>,
    ) -> Self {
        let images = manifest.images.iter().map(|image| {
            let version = image.loader.shared_kernel().flatten().cloned();
            let cmdline = image.loader.shared_cmdline().to_owned();
            (image.name.clone(), ImageBoot { version, cmdline })
        });
        let nodes = manifest
            .assignments
            .iter()
            .map(|assigned| (assigned.mac, (assigned.image.clone(), assigned.cmdline.clone())));
        let later = settings.nodes.iter().filter_map(|node| {
            let image = node.image.as_ref().filter(|name| manifest.image(name).is_none())?;
            Some((node.mac, image.clone()))
        });
        let others = settings.nodes.iter().filter(|node| node.boot != BootFrom::Image);
        let others = others.map(|node| (node.mac, node.boot));
        let named: BTreeSet<Mac> = named(settings).into_keys().collect();
        let is_at_once = manifest.menu.timeout_s == Some(0);
        Self {
            images: images.collect(),
            nodes: nodes.collect(),
            later: later.collect(),
            others: others.collect(),
            named,
            facts: settings
                .nodes
                .iter()
                .map(|node| (node.mac, (node.uuid.clone(), node.arch)))
                .collect(),
            ignored: settings.ignored.iter().copied().collect(),
            unknown: settings.unknown,
            groups: settings.groups.clone(),
            server: Some(settings.address),
            classic,
            default: Some((manifest.menu.default.clone(), is_at_once)),
        }
    }

    /// What the script of who asks does: nodes that the lab does not name may be in a group of it all the
    /// same, by what they are.
    pub(super) fn of_asker(&self, asked: &ScriptAsked, next: Option<&NextBoot>) -> Boot {
        let is_stranger = !self.named.contains(&asked.mac);
        if next.is_none()
            && is_stranger
            && self.unknown == Unknown::Boot
            && !self.is_ignored(asked.mac)
            && let Some(boot) = self.of_group(asked)
        {
            return boot;
        }
        self.of_node(asked.mac, next)
    }

    /// By its group. Its words reach phase 1's kernel and roots that run on it; those for another kernel
    /// are signed for nodes that have a name.
    fn of_group(&self, asked: &ScriptAsked) -> Option<Boot> {
        let ScriptAsked { mac, uuid, arch, address, .. } = asked;
        let (mac, address, arch) = (*mac, *address, *arch);
        let facts = Facts { name: None, mac, address, uuid: uuid.as_deref(), arch, group: None };
        let group = group::of(&self.groups, &facts)?;
        let node = Facts { group: Some(&group.name), ..facts };
        let server = Server { address: self.server? };
        let words = template::render(&group.cmdline, &Known { node, server, vars: &group.vars });
        let words = words.and_then(|words| match is_cmdline(&words) {
            true => Ok(words),
            false => Err("is no command line once it is filled in".to_owned()),
        });
        let words = words.unwrap_or_else(|error| {
            tracing::warn!(target: "HTTP", "nodes.yaml: groups.{}.cmdline for {mac} {error}", group.name);
            String::new()
        });
        let default = || Some(self.default.as_ref()?.0.clone()).filter(|_| !words.is_empty());
        let image = group.image.clone().or_else(default);
        match (group.boot.unwrap_or_default(), image) {
            (BootFrom::Disk, _) => Some(Boot::Disk),
            (BootFrom::Classic, Some(image)) if self.classic.contains(&image) => {
                let of_image = self.images.get(&image).map_or("", |image| image.cmdline.as_str());
                let cmdline = [of_image, &words].join(" ").trim().to_owned();
                Some(Boot::Classic(ClassicBoot { image, cmdline }))
            }
            (_, None) => None,
            (_, Some(image)) if !self.images.contains_key(&image) => Some(Boot::Later(image)),
            (_, Some(image)) => {
                let words = format!("boottorrent.image={image} {words}");
                Some(Boot::Phase1(self.boot(Some(&image), true, &words)))
            }
        }
    }

    /// A request from `address`, with what the lab says of the node where it says nothing itself.
    pub(super) fn completed(&self, asked: ScriptAsked, address: Option<Ipv4Addr>) -> ScriptAsked {
        let (uuid, arch) = self.facts.get(&asked.mac).cloned().unwrap_or_default();
        let (uuid, arch) = (asked.uuid.or(uuid), asked.arch.or(arch));
        ScriptAsked { uuid, arch, address, ..asked }
    }

    /// What is decided for a node: an image's name, or that it is left to its disk.
    pub(super) fn decided(&self, mac: Mac) -> Option<NextBoot> {
        if self.others.get(&mac) == Some(&BootFrom::Disk) {
            return Some(NextBoot::Disk);
        }
        self.nodes.get(&mac).map(|(image, _)| NextBoot::Image(image.clone()))
    }

    /// Whether a node is left alone: to it this server is not there.
    pub(super) fn is_ignored(&self, mac: Mac) -> bool {
        let is_unwanted = self.unknown == Unknown::Ignore || self.ignored.contains(&mac);
        is_unwanted && !self.named.contains(&mac)
    }

    /// What the script of a node does. Words for an image that is only offered in a menu are left to
    /// the agent, which knows whether it is chosen.
    pub(super) fn of_node(&self, mac: Mac, next: Option<&NextBoot>) -> Boot {
        match next {
            Some(NextBoot::Disk) => return Boot::Disk,
            Some(NextBoot::Image(name)) => {
                let words = format!("boottorrent.image={name}");
                return Boot::Phase1(self.boot(Some(name), true, &words));
            }
            None if self.is_ignored(mac) => return Boot::Leave,
            None if self.unknown == Unknown::Wait && !self.named.contains(&mac) => {
                return Boot::Wait;
            }
            None => match (self.others.get(&mac), self.later.get(&mac)) {
                (Some(BootFrom::Disk), _) => return Boot::Disk,
                (_, Some(image)) => return Boot::Later(image.clone()),
                (Some(BootFrom::Classic), None) => {
                    if let Some(boot) = self.classic(mac) {
                        return Boot::Classic(boot);
                    }
                }
                (Some(BootFrom::Image) | None, None) => {}
            },
        }
        Boot::Phase1(match (self.nodes.get(&mac), &self.default) {
            (Some((image, cmdline)), _) => self.boot(Some(image), true, cmdline),
            (None, Some((image, is_at_once))) => self.boot(Some(image), *is_at_once, ""),
            (None, None) => self.boot(None, false, ""),
        })
    }

    /// By the script of the node's image, or of the default one; nothing if it has none.
    fn classic(&self, mac: Mac) -> Option<ClassicBoot> {
        let (image, cmdline) = match (self.nodes.get(&mac), &self.default) {
            (Some((image, cmdline)), _) => (image, cmdline.as_str()),
            (None, default) => (&default.as_ref()?.0, ""),
        };
        let cmdline = [self.images.get(image)?.cmdline.as_str(), cmdline].join(" ");
        let found = self.classic.get(image)?;
        Some(ClassicBoot { image: found.clone(), cmdline: cmdline.trim().to_owned() })
    }

    fn boot(&self, image: Option<&ImageName>, is_decided: bool, words: &str) -> Phase1Boot {
        let image = image.and_then(|image| self.images.get(image));
        let version = image.and_then(|image| image.version.as_ref());
        let folder = match version {
            Some(version) => format!("/phase1/{version}"),
            None => "/phase1".to_owned(),
        };
        let of_image = image.filter(|_| is_decided).map_or("", |image| image.cmdline.as_str());
        Phase1Boot { folder, cmdline: [of_image, words].join(" ").trim().to_owned() }
    }
}

#[cfg(test)]
impl Boots {
    /// One node that boots one image by that image's own script.
    pub(super) fn classic_for_tests(node: Mac, image: &str, cmdline: &str) -> Self {
        let image: ImageName = image.parse().unwrap();
        let of_image = ImageBoot { version: None, cmdline: String::new() };
        Self {
            images: BTreeMap::from([(image.clone(), of_image)]),
            nodes: BTreeMap::from([(node, (image.clone(), cmdline.to_owned()))]),
            others: BTreeMap::from([(node, BootFrom::Classic)]),
            classic: BTreeSet::from([image]),
            ..Self::default()
        }
    }

    /// Those of a lab that names nobody.
    pub(super) fn for_strangers(unknown: Unknown, ignored: &[Mac]) -> Self {
        Self { unknown, ignored: ignored.iter().copied().collect(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::group::Selector;
    use crate::lab::settings::NodeSettings;
    use crate::lab::template::Vars;
    use boot::manifest::{Assignment, Discovery, Menu, VERSION};
    use boot::{Image, Loader};

    const NODE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    /// `live` is for the kernel 6.12 and has words; `old` is for the lab's own. `NODE` has `live`.
    fn boots(default: &str, timeout_s: Option<u64>) -> Boots {
        boots_with(default, timeout_s, &[])
    }

    fn boots_with(default: &str, timeout_s: Option<u64>, others: &[(Mac, BootFrom)]) -> Boots {
        let image = |name: &str, kernel: Option<&str>, cmdline: &str| Image {
            name: name.parse().unwrap(),
            title: name.to_owned(),
            description: String::new(),
            password: None,
            len: 1,
            infohash: [0; 32],
            loader: Loader::Livenet {
                rootfs: "squashfs.img".parse().unwrap(),
                kernel_version: kernel.map(|version| version.parse().unwrap()),
                cmdline: cmdline.to_owned(),
            },
        };
        let manifest = Manifest {
            version: VERSION,
            serial: 1,
            menu: Menu { default: default.parse().unwrap(), timeout_s, shell: Default::default() },
            seed_time_s: 0,
            seed_auto: false,
            keymap: None,
            discovery: Discovery { lsd: false, pex: false },
            images: vec![image("live", Some("6.12"), "quiet"), image("old", None, "slow")],
            phase1: vec![],
            booted_upload_limit_bytes_per_s: None,
            assignments: vec![Assignment {
                mac: NODE,
                image: "live".parse().unwrap(),
                cmdline: "node=1".to_owned(),
                name: None,
            }],
        };
        let mut settings = Settings::for_tests(std::path::Path::new("/lab"));
        settings.nodes = others.iter().map(|(mac, boot)| node(*mac, *boot)).collect();
        Boots::of(&manifest, &settings, BTreeSet::from(["live".parse().unwrap()]))
    }

    fn node(mac: Mac, boot: BootFrom) -> NodeSettings {
        NodeSettings { boot, ..NodeSettings::for_tests(&format!("c{}", mac.0[5]), mac) }
    }

    #[test]
    fn a_node_boots_the_classic_way_if_its_image_can() {
        let classic = [(NODE, BootFrom::Classic), (OTHER, BootFrom::Classic)];
        let boots = boots_with("old", Some(30), &classic);
        let (image, cmdline) = ("live".parse().unwrap(), "quiet node=1".to_owned());
        assert_eq!(boots.of_node(NODE, None), Boot::Classic(ClassicBoot { image, cmdline }));
        // The default image has no script.
        check(&boots, OTHER, None, "/phase1", "");
        let disk = boots_with("old", Some(30), &[(NODE, BootFrom::Disk)]);
        assert_eq!(disk.of_node(NODE, None), Boot::Disk);
    }

    #[track_caller]
    fn check(boots: &Boots, mac: Mac, next: Option<NextBoot>, folder: &str, cmdline: &str) {
        let expect = Phase1Boot { folder: folder.to_owned(), cmdline: cmdline.to_owned() };
        assert_eq!(boots.of_node(mac, next.as_ref()), Boot::Phase1(expect));
    }

    #[test]
    fn a_node_loads_the_kernel_of_its_image() {
        let menu = boots("live", Some(30));
        check(&menu, NODE, None, "/phase1/6.12", "quiet node=1");
        // Somebody may choose another image: words are for the one that is.
        check(&menu, OTHER, None, "/phase1/6.12", "");
        check(&boots("live", Some(0)), OTHER, None, "/phase1/6.12", "quiet");
        check(&boots("old", Some(0)), OTHER, None, "/phase1", "slow");
    }

    #[test]
    fn the_next_boot_goes_before_what_is_assigned() {
        let menu = boots("live", Some(30));
        let next = Some(NextBoot::Image("old".parse().unwrap()));
        check(&menu, NODE, next, "/phase1", "slow boottorrent.image=old");
        assert_eq!(menu.of_node(NODE, Some(&NextBoot::Disk)), Boot::Disk);
    }

    #[test]
    fn a_node_without_a_name_is_in_a_group_by_what_it_is() {
        let mut boots = boots("old", Some(30));
        let group = |image: Option<&str>, boot, cmdline: &str| Group {
            name: "racks".to_owned(),
            selector: Some(Selector { archs: vec![Arch::X86_64], ..Selector::default() }),
            image: image.map(|name| name.parse().unwrap()),
            cmdline: cmdline.to_owned(),
            boot,
            vars: Vars::new(),
        };
        let asked = |mac, arch| ScriptAsked {
            mac,
            uuid: None,
            arch: Some(arch),
            firmware: None,
            address: Some([10, 0, 0, 9].into()),
        };
        let mut check = |group: Group, expect: Boot| {
            boots.groups = vec![group];
            assert_eq!(boots.of_asker(&asked(OTHER, Arch::X86_64), None), expect);
            let elsewhere = boots.of_node(OTHER, None);
            assert_eq!(boots.of_asker(&asked(OTHER, Arch::Arm64), None), elsewhere);
        };
        let phase1 = |folder: &str, cmdline: &str| {
            Boot::Phase1(Phase1Boot { folder: folder.to_owned(), cmdline: cmdline.to_owned() })
        };
        let words = "at={{ node.address }} of={{ node.group }}";
        let expect = "quiet boottorrent.image=live at=10.0.0.9 of=racks";
        check(group(Some("live"), None, words), phase1("/phase1/6.12", expect));
        check(group(None, None, "x"), phase1("/phase1", "slow boottorrent.image=old x"));
        check(group(Some("live"), Some(BootFrom::Disk), ""), Boot::Disk);
        let image = "live".parse().unwrap();
        let classic = Boot::Classic(ClassicBoot { image, cmdline: "quiet x".to_owned() });
        check(group(Some("live"), Some(BootFrom::Classic), "x"), classic);
        // What cannot be filled in is left out, and said in the log.
        let bare = phase1("/phase1/6.12", "quiet boottorrent.image=live");
        check(group(Some("live"), None, "{{ node.name }}"), bare.clone());
        check(group(Some("live"), None, "{{ '||' }} shell"), bare);
        let next = Some(NextBoot::Disk);
        assert_eq!(boots.of_asker(&asked(OTHER, Arch::X86_64), next.as_ref()), Boot::Disk);
        boots.unknown = Unknown::Wait;
        assert_eq!(boots.of_asker(&asked(OTHER, Arch::X86_64), None), Boot::Wait);
    }
}
