//! What each node boots, as far as its boot script has to know: which kernel phase 1 runs on, what is
//! added to its command line, or that the disk is booted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use boot::{ImageName, KernelVersion, Mac, Manifest};
use serde::{Deserialize, Serialize};

use crate::lab::settings::Settings;

/// For one boot, whatever is assigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NextBoot {
    /// This image.
    Image(ImageName),
    /// The disk.
    Disk,
}

/// What a script does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Boot {
    /// Loads this phase 1.
    Phase1(Phase1Boot),
    /// Leaves the node to its disk.
    Disk,
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
    /// Nodes that boot from their disk.
    disks: Vec<Mac>,
    /// What the others boot, and whether nobody is asked.
    default: Option<(ImageName, bool)>,
}

impl Boots {
    /// Those of a lab.
    pub(crate) fn of(manifest: &Manifest, settings: &Settings) -> Self {
        let images = manifest.images.iter().map(|image| {
            let version = image.loader.shared_kernel().flatten().cloned();
            let cmdline = image.loader.shared_cmdline().to_owned();
            (image.name.clone(), ImageBoot { version, cmdline })
        });
        let nodes = manifest
            .assignments
            .iter()
            .map(|assigned| (assigned.mac, (assigned.image.clone(), assigned.cmdline.clone())));
        let disks = settings.nodes.iter().filter(|node| node.disk).map(|node| node.mac);
        let is_at_once = manifest.menu.timeout_s == Some(0);
        Self {
            images: images.collect(),
            nodes: nodes.collect(),
            disks: disks.collect(),
            default: Some((manifest.menu.default.clone(), is_at_once)),
        }
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
            None if self.disks.contains(&mac) => return Boot::Disk,
            None => {}
        }
        Boot::Phase1(match (self.nodes.get(&mac), &self.default) {
            (Some((image, cmdline)), _) => self.boot(Some(image), true, cmdline),
            (None, Some((image, is_at_once))) => self.boot(Some(image), *is_at_once, ""),
            (None, None) => self.boot(None, false, ""),
        })
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

/// What nodes boot the next time and then no more. Kept until the node's agent reports from that boot,
/// or its disk was named to it: a script that was lost on the way is asked for again.
#[derive(Clone, Default)]
pub(crate) struct NextBoots(Arc<Mutex<BTreeMap<Mac, Next>>>);

struct Next {
    boot: NextBoot,
    /// The node has asked for its script since.
    is_handed_out: bool,
}

/// The most nodes for which that is kept: as many as a lab can name.
const NEXT_MAX: usize = 50_000;

impl NextBoots {
    /// Decides it for nodes; how many were taken.
    pub(crate) fn decide(&self, macs: &[Mac], boot: &NextBoot) -> usize {
        let mut next = self.lock();
        let before = next.len();
        for &mac in macs.iter().take(NEXT_MAX.saturating_sub(before)) {
            next.insert(mac, Next { boot: boot.clone(), is_handed_out: false });
        }
        macs.len().min(NEXT_MAX.saturating_sub(before))
    }

    /// What a node that asks for its script boots.
    pub(super) fn of(&self, mac: Mac) -> Option<NextBoot> {
        let mut next = self.lock();
        let found = next.get_mut(&mac)?;
        found.is_handed_out = true;
        let boot = found.boot.clone();
        if boot == NextBoot::Disk {
            next.remove(&mac);
        }
        Some(boot)
    }

    /// A node's agent runs.
    pub(super) fn reported(&self, mac: Mac) {
        let mut next = self.lock();
        if next.get(&mac).is_some_and(|next| next.is_handed_out) {
            next.remove(&mac);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Mac, Next>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
