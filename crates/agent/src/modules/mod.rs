//! Drivers for what the machine has: the kernel names each device by a modalias, depmod's
//! modules.alias says which module drives it, and that is loaded with what it needs.
//!
//! First all devices that sysfs shows, those of the network before others, again and again until no
//! more come (a bridge's driver brings the devices behind it); then, in a thread, those that the
//! kernel announces. Everything may be done twice.
//!
//! Modules that fail are said and passed over: the machine may well boot without its sound card.

mod glob;
mod index;
mod kernel;
mod uevent;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::index::{Index, Name};
use self::kernel::{InsertError, Kernel, RunningKernel};
use self::uevent::{Heard, Uevents};

/// Rounds over all devices. Each finds those that the drivers of the one before have brought at
/// once; five are a PCI bridge, a card, its bus, a device on that and one behind it. What comes later
/// is announced.
const ROUNDS_MAX: usize = 8;

/// Devices that are looked at in a round: a large server has 10,000.
const DEVICES_MAX: usize = 1 << 16;

/// How long to wait when the kernel's announcements cannot be read.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// Where things are.
#[derive(Clone, Debug)]
struct ModulesConfig {
    /// `/lib/modules/RELEASE`.
    dir: PathBuf,
    /// Where sysfs is mounted.
    sys: PathBuf,
    /// The kernel's command line: `MODULE.PARAMETER=VALUE` and `modprobe.blacklist=MODULE,…` are
    /// heeded, as with modprobe(8).
    cmdline: String,
}

impl ModulesConfig {
    /// For the running kernel, with everything where it is below `root`: `/` on a node.
    fn of_running_kernel(root: &Path) -> Self {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy().into_owned();
        Self {
            dir: root.join("lib/modules").join(release),
            sys: root.join("sys"),
            // Without one there are no parameters: no reason not to have drivers.
            cmdline: fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default(),
        }
    }
}

/// Why there are no modules at all. A kernel that has its drivers built in boots without.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: is the initramfs of another kernel?", path.display())]
pub(crate) struct ModulesError {
    path: PathBuf,
    source: io::Error,
}

/// What a walk over all devices came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Modules that were loaded, in order.
    pub(crate) loaded: Vec<String>,
    /// Those that could not be, and why, in sentences.
    pub(crate) failed: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.loaded.len() {
            0 => f.write_str("none")?,
            _ => f.write_str(&self.loaded.join(", "))?,
        }
        if !self.failed.is_empty() {
            write!(f, " (not loaded: {})", self.failed.join("; "))?;
        }
        Ok(())
    }
}

/// Loads modules for all devices that are there, and from then on, in a thread, for those that come.
/// `root` is `/` on a node.
pub(crate) fn coldplug(root: &Path) -> Result<Summary, ModulesError> {
    let started = Instant::now();
    let mut loader = Loader::open(&ModulesConfig::of_running_kernel(root), RunningKernel)?;
    // Before the walk: what comes during it is announced, and heard afterwards.
    let uevents = Uevents::open();
    let summary = loader.coldplug();
    tracing::info!(
        count = summary.loaded.len(),
        of = loader.index.module_count(),
        failed = summary.failed.len(),
        elapsed_ms = started.elapsed().as_millis() as u64,
        "modules loaded"
    );
    let watching = uevents.and_then(|uevents| {
        let thread = std::thread::Builder::new().name("modules".into());
        thread.spawn(move || loader.watch(&uevents)).map(drop)
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "devices that come later will have no driver");
    }
    Ok(summary)
}

/// Loads a module by name or alias with all that it needs, such as `overlay` or `fs-squashfs`, for
/// what no device asks for.
pub(crate) fn load(root: &Path, wanted: &str) -> Result<Summary, ModulesError> {
    let mut loader = Loader::open(&ModulesConfig::of_running_kernel(root), RunningKernel)?;
    let mut summary = Summary::default();
    loader.load_wanted(wanted, &mut summary);
    Ok(summary)
}

/// Knows what has been tried.
struct Loader<K> {
    index: Index,
    kernel: K,
    sys: PathBuf,
    parameters: Vec<(Name, String)>,
    /// Never loaded for a device.
    barred: Vec<Name>,
    /// Loaded, or failed for good.
    done: BTreeSet<Name>,
    failed: BTreeSet<Name>,
    /// Aliases that were looked up: thousands of devices share a few hundred.
    seen: BTreeSet<String>,
}

impl<K: Kernel> Loader<K> {
    fn open(config: &ModulesConfig, kernel: K) -> Result<Self, ModulesError> {
        let index = Index::open(&config.dir)
            .map_err(|source| ModulesError { path: config.dir.join("modules.dep"), source })?;
        let (parameters, barred) = read_cmdline(&config.cmdline);
        Ok(Self {
            index,
            kernel,
            sys: config.sys.clone(),
            parameters,
            barred,
            done: BTreeSet::new(),
            failed: BTreeSet::new(),
            seen: BTreeSet::new(),
        })
    }

    /// Looks at all devices until there are no new ones.
    fn coldplug(&mut self) -> Summary {
        let mut summary = Summary::default();
        for _ in 0..ROUNDS_MAX {
            let mut aliases = modaliases(&self.sys);
            aliases.retain(|alias| !self.seen.contains(alias));
            if aliases.is_empty() {
                break;
            }
            aliases.sort_by_key(|alias| (!is_network(alias), alias.clone()));
            for alias in aliases {
                self.hear_of(&alias, &mut summary);
            }
        }
        summary
    }

    /// Loads for new devices for as long as the agent lives.
    fn watch(&mut self, uevents: &Uevents) {
        loop {
            let summary = match uevents.next() {
                Ok(Heard::Device { alias }) => {
                    let mut summary = Summary::default();
                    self.hear_of(&alias, &mut summary);
                    summary
                }
                Ok(Heard::Other) => continue,
                Ok(Heard::Lost) => self.coldplug(),
                Err(error) => {
                    tracing::warn!(%error, "the kernel's announcements cannot be read");
                    std::thread::sleep(TROUBLE_PAUSE);
                    continue;
                }
            };
            for name in &summary.loaded {
                tracing::info!(module = name, "module loaded for a new device");
            }
        }
    }

    /// Loads what a device wants, once.
    fn hear_of(&mut self, alias: &str, summary: &mut Summary) {
        if !self.seen.insert(alias.to_owned()) {
            return;
        }
        for name in self.index.wanted_by(alias) {
            if !self.barred.contains(&name) {
                self.load(&name, summary);
            }
        }
    }

    fn load_wanted(&mut self, wanted: &str, summary: &mut Summary) {
        let name = Name::new(wanted);
        if !self.index.steps(&name).is_empty() {
            return self.load(&name, summary);
        }
        for name in self.index.wanted_by(wanted) {
            self.load(&name, summary);
        }
    }

    /// Loads a module with all that it needs, up to one that is needed and fails.
    fn load(&mut self, name: &Name, summary: &mut Summary) {
        for step in self.index.steps(name) {
            if self.failed.contains(&step.name) && step.required {
                return;
            }
            if !self.done.insert(step.name.clone()) {
                continue;
            }
            let parameters = self.parameters_of(&step.name);
            match self.kernel.insert(&step.path, &parameters) {
                Ok(()) => summary.loaded.push(step.name.as_str().to_owned()),
                Err(error) => {
                    self.failed.insert(step.name.clone());
                    self.note(&step.name, error, summary);
                    if step.required {
                        return;
                    }
                }
            }
        }
    }

    fn note(&self, name: &Name, error: InsertError, summary: &mut Summary) {
        let module = name.as_str();
        // Not worth a line on a small screen: an alias of a whole family of machines has led here.
        if matches!(error, InsertError::NoDevice) {
            tracing::debug!(module, "no device for this module");
            return;
        }
        let error = anyhow::Error::from(error);
        tracing::warn!(module, "module not loaded: {error:#}");
        summary.failed.push(format!("module {module}: {error:#}"));
    }

    fn parameters_of(&self, name: &Name) -> String {
        let own: Vec<&str> = self
            .parameters
            .iter()
            .filter(|(of, _)| of == name)
            .map(|(_, parameter)| parameter.as_str())
            .collect();
        own.join(" ")
    }
}

/// Parameters by module, and the modules that are barred.
fn read_cmdline(cmdline: &str) -> (Vec<(Name, String)>, Vec<Name>) {
    let (mut parameters, mut barred) = (vec![], vec![]);
    for word in cmdline.split_ascii_whitespace() {
        let word = word.trim_matches('"');
        if let Some(names) = word.strip_prefix("modprobe.blacklist=") {
            barred.extend(names.split(',').map(Name::new));
        } else if let Some((module, parameter)) = word.split_once('.')
            && !module.contains('=')
        {
            parameters.push((Name::new(module), parameter.to_owned()));
        }
    }
    (parameters, barred)
}

/// What all devices want that are on a bus.
fn modaliases(sys: &Path) -> Vec<String> {
    let entries = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten();
    let mut aliases: Vec<String> = entries(sys.join("bus"))
        .flat_map(|bus| entries(bus.path().join("devices")))
        .take(DEVICES_MAX)
        .filter_map(|device| fs::read_to_string(device.path().join("modalias")).ok())
        .map(|alias| alias.trim_end().to_owned())
        .filter(|alias| !alias.is_empty())
        .collect();
    aliases.sort();
    aliases.dedup();
    aliases
}

/// Whether a device is a network card, as far as its modalias tells: the class of a PCI or USB
/// device, the type of a virtio device (1), or virtio's bridge on PCI, behind which that is.
fn is_network(alias: &str) -> bool {
    let patterns = ["pci:*bc02*", "usb:*ic02*", "virtio:d00000001v*", "pci:v00001AF4*"];
    patterns.iter().any(|pattern| glob::matches(pattern, alias))
}

#[cfg(test)]
mod tests;
