//! What can be done from afar: by a command through the lab's socket, or over HTTP by who is logged in.
//! What is decided for nodes is written into nodes.yaml and in force when this has returned.

mod images;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boot::{Arch, ImageName, Mac, nodeset};

use super::changes::Changes;
use super::sockets::chain;
use super::versions::Versions;
use crate::fleet::{SharedFleet, Standing, Summary, UnixMs};
use crate::http::{NextBoot, NextBoots, Orders, Tell};
use crate::lab::Lab;
use crate::lab::config::is_uuid;
use crate::lab::edit::{self, Change};
use crate::lab::nodes_file::{NodesFile, WriteError};
use crate::lab::settings::Settings;
use crate::node::power::{self, Action};
use crate::node::wake;
use crate::quantity;

/// Something to be done with nodes, or with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// What they boot from now on, and their own words for the command line if they shall be others.
    Assign { nodes: Vec<Mac>, boot: NextBoot, cmdline: Option<String> },
    /// What they boot the next time, and then no more.
    AssignOnce { nodes: Vec<Mac>, boot: NextBoot },
    /// They boot their group's image, or get the menu.
    Unassign { nodes: Vec<Mac> },
    /// They are switched on through their network cards.
    Wake { nodes: Vec<Mac> },
    /// They are switched on or off, or asked whether they are on, by the lab's hook.
    Power { nodes: Vec<Mac>, action: Action },
    /// They start anew, if something of ours runs on them.
    Reboot { nodes: Vec<Mac> },
    /// They are left alone from now on.
    Ignore { nodes: Vec<Mac> },
    /// One that nodes.yaml does not name gets a name there.
    Accept { node: Mac, name: Option<String>, image: Option<ImageName> },
    /// Nodes boot a version of an image that was kept, by default the one before.
    Rollback { image: ImageName, to: Option<u32> },
    /// The files of an image as another version, with another title or command line if they are given.
    Publish { image: ImageName, title: Option<String>, cmdline: Option<String> },
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// With which nodes.
    pub(crate) nodes: Vec<Mac>,
    /// With which it could not be done.
    pub(crate) refused: Vec<Refused>,
    /// What was told of those with which it was done, if that was asked for.
    pub(crate) told: Vec<Told>,
    /// Of an image: the version that nodes boot now.
    pub(crate) version: Option<u32>,
    /// In a sentence.
    pub(crate) text: String,
}

/// What was told of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) node: Mac,
    pub(crate) text: String,
}

impl Done {
    /// What came of hooks.
    pub(crate) fn of_power(outcomes: Vec<(Mac, power::Outcome)>, action: Action) -> Self {
        let mut done = Self::default();
        for (node, outcome) in outcomes {
            match outcome {
                Ok(text) => {
                    done.nodes.push(node);
                    done.told.push(Told { node, text });
                }
                Err(reason) => done.refused.push(Refused { node, reason }),
            }
        }
        let count = quantity::count(done.nodes.len(), "node");
        done.text = format!("power {action} of {count} is done");
        if let [Told { text, .. }] = &done.told[..]
            && !text.is_empty()
        {
            done.text = format!("{}: {text}", done.text);
        }
        if !done.refused.is_empty() {
            done.text = format!("{}, {} failed", done.text, done.refused.len());
        }
        done
    }
}

/// A node with which something could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) node: Mac,
    pub(crate) reason: String,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is nothing of this name.
    Missing(String),
    /// As things are it cannot be done.
    Conflict(String),
    /// Something is in the way on this server.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Missing(text) | Self::Conflict(text) | Self::Failed(text)) = self;
        f.write_str(text)
    }
}

/// Does it; a copy is another reference.
#[derive(Clone)]
pub(crate) struct Deeds(Arc<Inner>);

struct Inner {
    /// Those of the start: what is used of them does not change while the server runs.
    settings: Settings,
    fleet: SharedFleet,
    next: NextBoots,
    orders: Orders,
    reload: Tell<Changes>,
    versions: Versions,
    /// Held by who changes an image.
    images: tokio::sync::Mutex<()>,
}

/// After how long without a report nothing of ours runs on a node any more: six times what an agent
/// lets pass between two.
pub(crate) const SILENT_MS: u64 = 30_000;

impl Deeds {
    pub(crate) fn new(
        settings: Settings,
        fleet: SharedFleet,
        next: NextBoots,
        orders: Orders,
        reload: Tell<Changes>,
    ) -> Self {
        let versions = Versions::new(settings.dir.clone());
        let images = tokio::sync::Mutex::default();
        Self(Arc::new(Inner { settings, fleet, next, orders, reload, versions, images }))
    }

    /// Which versions of images there are.
    pub(crate) fn versions(&self) -> Versions {
        self.0.versions.clone()
    }

    /// Does it.
    ///
    /// # Errors
    /// If nothing of it was done.
    pub(crate) async fn perform(&self, deed: Deed) -> Result<Done, Refusal> {
        match deed {
            Deed::Assign { nodes, boot, cmdline } => self.assign(nodes, &boot, cmdline).await,
            Deed::AssignOnce { nodes, boot } => {
                let decided = self.0.next.decide(&nodes, &boot);
                decided.map_err(|error| Refusal::Failed(format!("{error:#}")))?;
                let what = what(&boot);
                self.note(&nodes, &format!("is to boot {what} the next time"));
                Ok(self.done(nodes, &format!("boot {what} the next time, and then no more")))
            }
            Deed::Unassign { nodes } => {
                let nothing = [("image", None), ("boot", None), ("cmdline", None)];
                self.edit(&nodes, &nothing).await?;
                self.note(&nodes, "has nothing assigned any more");
                Ok(self.done(nodes, "have nothing assigned"))
            }
            Deed::Wake { nodes } => self.wake(nodes).await,
            Deed::Power { nodes, action } => self.power(nodes, action).await,
            Deed::Reboot { nodes } => self.reboot(nodes).await,
            Deed::Accept { node, name, image } => self.accept(node, name, image).await,
            Deed::Ignore { nodes } => self.ignore(nodes).await,
            Deed::Rollback { image, to } => self.roll_back(image, to).await,
            Deed::Publish { image, title, cmdline } => self.publish(image, title, cmdline).await,
        }
    }

    async fn assign(
        &self,
        nodes: Vec<Mac>,
        boot: &NextBoot,
        cmdline: Option<String>,
    ) -> Result<Done, Refusal> {
        let image = image(boot).map(ToString::to_string);
        let mut changes: Vec<Change<'_>> = match &image {
            Some(image) => vec![("image", Some(image)), ("boot", None)],
            None => vec![("boot", Some("disk"))],
        };
        if let Some(cmdline) = &cmdline {
            changes.push(("cmdline", (!cmdline.is_empty()).then_some(cmdline.as_str())));
        }
        self.edit(&nodes, &changes).await?;
        let what = what(boot);
        self.note(&nodes, &format!("is to boot {what} from now on"));
        Ok(self.done(nodes, &format!("boot {what}")))
    }

    /// Changes keys of nodes in nodes.yaml, and has it read.
    async fn edit(&self, nodes: &[Mac], changes: &[Change<'_>]) -> Result<(), Refusal> {
        let mut names = vec![];
        {
            let fleet = self.0.fleet.lock();
            for &mac in nodes {
                let summary = fleet.node(mac).map(|node| &node.summary);
                let name = summary.filter(|node| node.known).and_then(|node| node.name.clone());
                names.push(name.ok_or_else(|| {
                    Refusal::Conflict(format!("{mac} is not named in nodes.yaml: accept it first"))
                })?);
            }
        }
        let changes: Vec<(String, Option<String>)> = changes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned)))
            .collect();
        self.write(move |text| {
            let changes: Vec<Change<'_>> =
                changes.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
            names.iter().try_fold(text.to_owned(), |text, name| edit::edit(&text, name, &changes))
        })
        .await
    }

    async fn write(
        &self,
        change: impl FnOnce(&str) -> Result<String, edit::EditError> + Send + 'static,
    ) -> Result<(), Refusal> {
        let dir = self.0.settings.dir.clone();
        let written = blocking(move || {
            let file = NodesFile::open(&dir)?;
            let after = change(file.text())?;
            match after == file.text() {
                true => Ok(()),
                false => file.replace(&after),
            }
        });
        written.await?.map_err(|error| match error {
            WriteError::Io { .. } | WriteError::Open(_) => Refusal::Failed(chain(&error)),
            WriteError::Edit(_) | WriteError::Problems(_) => Refusal::Conflict(error.to_string()),
        })?;
        let reloaded = (self.0.reload)().await;
        reloaded.map(drop).map_err(|text| Refusal::Failed(format!("it is written, but {text}")))
    }

    async fn wake(&self, nodes: Vec<Mac>) -> Result<Done, Refusal> {
        let (settings, macs) = (self.0.settings.clone(), nodes.clone());
        let called =
            blocking(move || wake::call(&settings, &macs, wake::EVERYBODY, Duration::ZERO));
        called.await?.map_err(|error| Refusal::Failed(format!("{error:#}")))?;
        self.note(&nodes, "is called to wake up");
        Ok(self.done(nodes, "are called: a card that was set up to listen wakes its machine"))
    }

    /// As the lab's files say at the moment: which program, and what it is to be told of a node.
    async fn power(&self, nodes: Vec<Mac>, action: Action) -> Result<Done, Refusal> {
        let dir = self.0.settings.dir.clone();
        let lab = blocking(move || Lab::open(&dir)).await?;
        let settings = lab.map_err(|error| Refusal::Failed(chain(&error)))?.settings;
        // Not left half done because somebody who asked for it has gone.
        let run = tokio::spawn(async move { power::run(&settings, &nodes, action).await });
        let outcomes = run.await.map_err(lost)?;
        let outcomes = outcomes.map_err(|error| Refusal::Conflict(error.to_string()))?;
        let done = Done::of_power(outcomes, action);
        if let (true, Some(refused)) = (done.nodes.is_empty(), done.refused.first()) {
            return Err(Refusal::Failed(format!("{}: {}", refused.node, refused.reason)));
        }
        if action != Action::Status {
            self.note(&done.nodes, &format!("power {action}"));
        }
        Ok(done)
    }

    async fn reboot(&self, nodes: Vec<Mac>) -> Result<Done, Refusal> {
        let now = UnixMs::now();
        let (mut in_reach, mut refused) = (vec![], vec![]);
        {
            let fleet = self.0.fleet.lock();
            for node in nodes {
                match fleet.node(node).and_then(|known| known.boot_in_reach(now, SILENT_MS)) {
                    Some(boot) => in_reach.push((node, boot)),
                    None => refused.push(Refused { node, reason: OUT_OF_REACH.to_owned() }),
                }
            }
        }
        if in_reach.is_empty() {
            return Err(Refusal::Conflict(OUT_OF_REACH.to_owned()));
        }
        let (inner, orders) = (Arc::clone(&self.0), in_reach.clone());
        let given = blocking(move || {
            let deed = boot::order::Deed::Reboot;
            inner.orders.give(&inner.settings.dir, deed, &orders, Instant::now())
        });
        given.await?.map_err(|error| Refusal::Failed(chain(&error)))?;
        let nodes: Vec<Mac> = in_reach.into_iter().map(|(node, _)| node).collect();
        self.note(&nodes, "is told to start anew");
        let mut done = self.done(nodes, "start anew with their next report");
        if !refused.is_empty() {
            let count = quantity::count(refused.len(), "node");
            done.text = format!("{}; {count} cannot be reached so", done.text);
        }
        Ok(Done { refused, ..done })
    }

    async fn accept(
        &self,
        node: Mac,
        name: Option<String>,
        image: Option<ImageName>,
    ) -> Result<Done, Refusal> {
        let name = name.unwrap_or_else(|| default_name(node));
        let known = self.0.fleet.lock().node(node).and_then(|node| node.summary.name.clone());
        if let Some(known) = known {
            let text = format!("{node} is named in nodes.yaml already: it is {known}");
            return Err(Refusal::Conflict(text));
        }
        let (named, mac) = (name.clone(), node.to_string());
        let seen = self.0.fleet.lock().node(node).map(|node| Seen::of(&node.summary));
        let Seen { uuid, arch } = seen.unwrap_or_default();
        self.write(move |text| {
            let image = image.as_ref().map(ImageName::as_str);
            let keys = [("image", image), ("uuid", uuid.as_deref()), ("arch", arch)];
            edit::accept(text, &named, &mac, &keys)
        })
        .await?;
        self.note(&[node], &format!("is accepted as {name}"));
        let text = format!("{node} is {name} now");
        Ok(Done { nodes: vec![node], text, ..Done::default() })
    }

    async fn ignore(&self, nodes: Vec<Mac>) -> Result<Done, Refusal> {
        {
            let fleet = self.0.fleet.lock();
            let standing = |mac| fleet.node(mac).map(|node| node.summary.standing);
            if let Some(known) = nodes.iter().find(|mac| standing(**mac) == Some(Standing::Known)) {
                let text = format!("{known} is named in nodes.yaml: assign its disk to it instead");
                return Err(Refusal::Conflict(text));
            }
        }
        let macs: Vec<String> = nodes.iter().map(Mac::to_string).collect();
        self.write(move |text| {
            macs.iter().try_fold(text.to_owned(), |text, mac| edit::ignore(&text, mac))
        })
        .await?;
        self.note(&nodes, "is ignored from now on");
        Ok(self.done(nodes, "are ignored from now on"))
    }

    /// Into the nodes' events and the log.
    fn note(&self, nodes: &[Mac], text: &str) {
        for &node in nodes {
            self.0.fleet.note(node, text);
        }
    }

    fn done(&self, nodes: Vec<Mac>, what: &str) -> Done {
        let fleet = self.0.fleet.lock();
        let label = |&mac: &Mac| fleet.node(mac).map_or_else(|| mac.to_string(), |n| n.label());
        let labels: Vec<String> = nodes.iter().map(label).collect();
        let set = nodeset::fold(labels.iter().map(String::as_str));
        Done { nodes, text: format!("{set} {what}"), ..Done::default() }
    }
}

/// What of a node is written beside its name, for groups to know it by.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) uuid: Option<String>,
    pub(crate) arch: Option<&'static str>,
}

impl Seen {
    pub(crate) fn of(node: &Summary) -> Self {
        let arch = match node.arch {
            Some(Arch::X86_64) => Some("x86_64"),
            Some(Arch::Arm64) => Some("arm64"),
            Some(Arch::Unknown) | None => None,
        };
        // What an agent says may be anything.
        Self { uuid: node.uuid.clone().filter(|uuid| is_uuid(uuid)), arch }
    }
}

const OUT_OF_REACH: &str = "nothing of BootTorrent runs on it now, so it cannot be told: it is off, or \
                            its image brought a kernel of its own";

/// What a node is called that is accepted without a name.
pub(crate) fn default_name(node: Mac) -> String {
    format!("n-{}", boot::hex::encode(&node.0))
}

const fn image(boot: &NextBoot) -> Option<&ImageName> {
    match boot {
        NextBoot::Image(image) => Some(image),
        NextBoot::Disk => None,
    }
}

fn what(boot: &NextBoot) -> String {
    image(boot).map_or_else(|| "from disk".to_owned(), ToString::to_string)
}

fn lost(_: tokio::task::JoinError) -> Refusal {
    Refusal::Failed("it ended before it was done: see the log".to_owned())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(lost)
}

#[cfg(test)]
mod tests;
