//! The boot, step by step, and again from the start when a step fails. For ever: whoever repairs
//! what was wrong does not have to walk to a thousand nodes.

use std::time::{Duration, Instant};

use boot::image::{After, QEMU_EXTENSION};
use boot::{Failure, Image, ImageName, Loader, Manifest, Phase1, Stage};
use rustix::system::RebootCommand;

use crate::backoff::Backoff;
use crate::booted::seeding::Terms;
use crate::booted::{Handover, Seed};
use crate::choose::{self, By, Choice, Decision};
use crate::console::{Mark, duration, failure_screen, mib};
use crate::download::{Download, VerifiedImage};
use crate::events::{Answered, Event, Key};
use crate::failed::{Failed, chain};
use crate::fetch::{Fetched, Order, fetch};
use crate::guest::{self, Guest};
use crate::link::Link;
use crate::loader::{self, ForNode, Plan, words};
use crate::manifest::Manifests;
use crate::menu::{Menu, Outcome};
use crate::node::{Node, Then};
use crate::other_kernel;
use crate::screen::menu::About;
use crate::sources::Sources;
use crate::{help, init, password, screen, shell};

/// How long the last report may hold up the boot.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_millis(500);

/// Reports between the one that is handed over and the first of the process under the system: more
/// than the reporter can have tried meanwhile.
const REPORTS_BETWEEN: u64 = 1_000;

/// Over how long a fleet spreads when the server says that it has something newer.
const RUSH: Duration = Duration::from_secs(1);

/// What lasts from one attempt to the next.
pub(crate) struct Run {
    link: Link,
    sources: Sources,
    manifests: Option<Manifests>,
    /// What was booted the last time, unless the person wants to choose anew.
    chosen: Option<(ImageName, By)>,
    /// Somebody is at the node and wants to choose.
    is_there: bool,
    /// The server's manifest is to be looked at, whatever the initramfs has.
    ask_server: bool,
    /// What was picked from a menu that had gone out of date.
    picked: Option<ImageName>,
    /// The newest serial that the server was asked for while a menu was shown.
    looked_for: u64,
    attempt_count: u32,
    backoff: Backoff,
    last: Option<Failure>,
}

impl Run {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            link: Link::new(),
            sources: Sources::new(&node.options.root, node.options.server.clone()),
            manifests: None,
            chosen: node.options.choice.clone().map(|name| (name, By::Menu)),
            is_there: false,
            ask_server: false,
            picked: None,
            looked_for: 0,
            attempt_count: 0,
            backoff: Backoff::new(node.options.retry, fastrand::u64(..)),
            last: None,
        }
    }

    /// Boots. Comes back only outside PID 1: true if an image was loaded as far as was asked for,
    /// false after as many failures as were allowed.
    pub(crate) fn run(mut self, node: &mut Node) -> bool {
        node.enter(Stage::Agent, &[("version", env!("CARGO_PKG_VERSION"))]);
        self.trust(node);
        if node.options.shell {
            shell::run(node);
        }
        loop {
            self.attempt_count += 1;
            let Err(failed) = self.attempt(node) else { return true };
            if node.options.attempts.is_some_and(|most| self.attempt_count >= most) {
                node.console.say(&failed.to_string());
                return false;
            }
            self.wait(node, failed);
        }
    }

    /// The lab's key is in the initramfs. Who gets a shell is known before there is a network, if the boot
    /// program brought the manifest.
    fn trust(&mut self, node: &mut Node) {
        let Ok(mut manifests) = Manifests::trusting(&node.options.root) else { return };
        if let Some(manifest) = manifests.local(&self.sources) {
            node.shell = manifest.menu.shell.clone();
            node.take_keymap(manifest.keymap.as_ref());
        }
        if node.options.is_init {
            help::listen(manifests.key(), node.log.clone(), node.console.clone());
        }
        self.manifests = Some(manifests);
    }

    /// One attempt, from the first step that has to be done again.
    fn attempt(&mut self, node: &mut Node) -> Result<(), Failed> {
        self.link.bring_up(node)?;
        loop {
            let manifest = self.manifest(node)?;
            if let Some(choice) = self.choose(node, &manifest)? {
                match self.boot(node, &manifest, &choice)? {
                    Booted::Yes => return Ok(()),
                    Booted::Cancelled => self.is_there = true,
                    // Whoever was at the guest may have left.
                    Booted::Ended => self.is_there = false,
                }
                self.chosen = None;
                node.leave();
            }
            // Somebody may stand before a menu for hours; it is to show what there is now.
            self.ask_server = true;
        }
    }

    fn manifest(&mut self, node: &mut Node) -> Result<Manifest, Failed> {
        node.enter(Stage::Manifest, &[]);
        // By now disks answer that took longer than the network.
        node.take_stock();
        let manifests = match &mut self.manifests {
            Some(manifests) => manifests,
            none => none.insert(Manifests::trusting(&node.options.root)?),
        };
        let console = node.console.clone();
        let manifest = manifests.find(&self.sources, self.ask_server, &mut |refused| {
            console.say(&format!("  passed over: {}", chain(refused)));
        })?;
        node.shell = manifest.menu.shell.clone();
        node.take_keymap(manifest.keymap.as_ref());
        let systems = manifest.images.iter().filter(|image| image.is_system());
        node.console.say(&format!(
            "The lab offers {} (manifest {}).",
            count(systems.count(), "image"),
            manifest.serial
        ));
        Ok(manifest)
    }

    /// What to boot; none if that has to be asked anew, of a newer manifest.
    fn choose(&mut self, node: &mut Node, manifest: &Manifest) -> Result<Option<Choice>, Failed> {
        let (wanted, mac) = (node.options.image.clone(), node.options.mac);
        let decision = choose::decide(manifest, wanted.as_ref(), mac, self.chosen.as_ref())?;
        let choice = match decision {
            // Whoever came back to the menu is asked, even where nobody is asked otherwise.
            Decision::Boot(choice)
                if self.picked.is_none() && (choice.by != By::Default || !self.is_there) =>
            {
                *choice
            }
            decision => {
                let timeout_s = match decision {
                    Decision::Ask(timeout_s) => timeout_s.filter(|_| !self.is_there),
                    Decision::Boot(_) => None,
                };
                match self.by_person(node, manifest, timeout_s)? {
                    Some(choice) => choice,
                    None => return Ok(None),
                }
            }
        };
        self.chosen = Some((choice.image.name.clone(), choice.by));
        let (title, name) = (&choice.image.title, &choice.image.name);
        node.console.say(&format!("This node boots {title} ({name}, by {}).", choice.by.name()));
        Ok(Some(choice))
    }

    /// What the person at the node wants, and may have. What was picked from a menu that was out of date
    /// is looked for in the manifest that is in force.
    fn by_person(
        &mut self,
        node: &mut Node,
        manifest: &Manifest,
        timeout_s: Option<u64>,
    ) -> Result<Option<Choice>, Failed> {
        let known = manifest.serial.max(self.looked_for);
        let (name, by) = match self.picked.take() {
            Some(name) => (name, By::Menu),
            None => match ask(node, manifest, timeout_s, known) {
                Asked::For(name, by) => (name, by),
                Asked::Outdated { serial, picked } => {
                    (self.looked_for, self.picked) = (serial, picked);
                    return Ok(None);
                }
            },
        };
        let image = manifest.image(&name).ok_or_else(|| {
            self.is_there = true;
            Failed::new(
                Failure::NoSuchImage,
                format!("`{name}` was withdrawn while the menu was open"),
            )
        })?;
        let hash = image.password.as_ref();
        if hash.is_some_and(|hash| !password::ask(node, &image.title, hash)) {
            self.is_there = true;
            return Ok(None);
        }
        Ok(Some(choose::choice(manifest, image, node.options.mac, by)))
    }

    fn boot(
        &mut self,
        node: &mut Node,
        manifest: &Manifest,
        choice: &Choice,
    ) -> Result<Booted, Failed> {
        // Somebody may have stood before the menu for a while.
        node.take_stock();
        let image = &choice.image;
        let line = std::fs::read_to_string(node.options.root.join("proc/cmdline"));
        let line = line.unwrap_or_default();
        let running = node.machine.kernel.clone();
        if let Some(phase1) = other_kernel::needed(manifest, image, &running, &line)? {
            self.change_kernel(node, phase1, image, &line)?;
            return Ok(Booted::Yes);
        }
        let name = choice.name.clone().or_else(|| node.options.name.clone());
        let server = node.options.server.as_ref().map(ToString::to_string);
        let (interface, address) = (node.machine.interface.clone(), node.machine.address.clone());
        let for_node = ForNode {
            name: name.as_deref(),
            mac: node.options.mac,
            cmdline: &choice.cmdline,
            interface: interface.as_deref(),
            address: address.as_deref(),
            server: server.as_deref(),
        };
        if !image.loader.has_payload() {
            let plan = Plan::without_files(image, for_node)?;
            node.console.say(&plan.describe());
            let handover = self.handover(node, image, None);
            self.hand_over(node, plan, None, &handover)?;
            return Ok(Booted::Yes);
        }
        if let Loader::Qemu { .. } = image.loader {
            return self.boot_guest(node, manifest, choice);
        }
        let order = Order {
            image,
            beside: None,
            discovery: &manifest.discovery,
            is_there: choice.by == By::Menu,
        };
        let fetched = fetch(node, &self.sources, &order, |metainfo| {
            loader::check(image, metainfo, &choice.cmdline)
        })?;
        let Some(Fetched { mut download, verified, torrent }) = fetched else {
            return Ok(Booted::Cancelled);
        };
        let plan = Plan::new(&verified, for_node)?;
        node.console.say(&format!("Verified. {}", plan.describe()));
        let mut seed = None;
        if plan.is_root() {
            seed = Some(self.seed(node, manifest, &verified, &torrent)?);
        } else {
            let time = Duration::from_secs(manifest.seed_time_s);
            download.seed(node, time, manifest.seed_auto);
        }
        if let Some(seed) = &mut seed {
            seed.uploaded_bytes = download.uploaded();
        }
        let handover = self.handover(node, image, seed);
        self.hand_over(node, plan, Some(download), &handover)?;
        Ok(Booted::Yes)
    }

    /// The image in a virtual machine, with the extension that it takes.
    fn boot_guest(
        &mut self,
        node: &mut Node,
        manifest: &Manifest,
        choice: &Choice,
    ) -> Result<Booted, Failed> {
        let image = &choice.image;
        let Loader::Qemu { args, display, after, kept_on } = &image.loader else {
            return Err(Failed::new(Failure::LoaderUnknown, "this is no virtual machine"));
        };
        let is_real = node.options.then == Then::Load;
        if let Some(label) = kept_on.as_ref().filter(|_| is_real) {
            // Nothing is fetched in vain.
            guest::disk::find(&node.options.root, label)?;
        }
        let extension = guest::extension::find(manifest, QEMU_EXTENSION)?;
        let fetched = self.fetch_both(node, manifest, extension, choice)?;
        let Some((tools, fetched)) = fetched else { return Ok(Booted::Cancelled) };
        let guest = Guest {
            image: image.name.clone(),
            version: boot::hex::encode(&image.infohash),
            folder: fetched.verified.folder().to_owned(),
            root: match is_real {
                true => guest::extension::open(&tools.verified)?,
                false => node.options.root.clone(),
            },
            args: words::split(args)?,
            display: *display,
            after: *after,
            kept_on: kept_on.clone(),
            torrents: vec![fetched.verified.seed(), tools.verified.seed()],
            terms: Terms {
                discovery: manifest.discovery.clone(),
                upload_limit_bytes_per_s: Some(
                    manifest.booted_upload_limit_bytes_per_s.unwrap_or(guest::UPLOAD_LIMIT),
                ),
                uploaded_bytes: tools.download.uploaded() + fetched.download.uploaded(),
            },
        };
        if !is_real {
            let text = guest.describe(node)?;
            node.console.say(&text);
            if let Then::Save(folder) = &node.options.then {
                std::fs::write(folder.join("guest"), text)
                    .map_err(|error| Failed::internal("cannot save", &error))?;
            }
            return Ok(Booted::Yes);
        }
        // One peer for both from here on, with the lab's limit.
        drop((tools, fetched));
        match guest.run(node)? {
            After::Menu | After::Unknown => Ok(Booted::Ended),
            After::Reboot => init::restart(RebootCommand::Restart),
            After::Poweroff => init::restart(RebootCommand::PowerOff),
        }
    }

    /// An extension and the image that needs it, which are seeded from when they are there. None if the
    /// person wants something else.
    fn fetch_both(
        &self,
        node: &mut Node,
        manifest: &Manifest,
        extension: &Image,
        choice: &Choice,
    ) -> Result<Option<(Fetched, Fetched)>, Failed> {
        let mut one = |image, beside| {
            let (discovery, is_there) = (&manifest.discovery, choice.by == By::Menu);
            let order = Order { image, beside: Some(beside), discovery, is_there };
            fetch(node, &self.sources, &order, |metainfo| loader::check(image, metainfo, ""))
        };
        let Some(tools) = one(extension, &choice.image)? else { return Ok(None) };
        Ok(one(&choice.image, extension)?.map(|fetched| (tools, fetched)))
    }

    /// What goes on being seeded under the system.
    fn seed(
        &self,
        node: &Node,
        manifest: &Manifest,
        verified: &VerifiedImage,
        torrent: &[u8],
    ) -> Result<Seed, Failed> {
        let path = node.options.root.join("run/boottorrent/seed.torrent");
        std::fs::write(&path, torrent)
            .map_err(|error| Failed::internal("cannot keep the torrent", &error))?;
        Ok(Seed {
            dir: verified.dir().to_owned(),
            torrent: path,
            pex: manifest.discovery.pex,
            lsd: manifest.discovery.lsd,
            upload_limit_bytes_per_s: manifest.booted_upload_limit_bytes_per_s,
            uploaded_bytes: 0,
        })
    }

    /// What the process under the system has to know.
    fn handover(&self, node: &Node, image: &Image, seed: Option<Seed>) -> Handover {
        let (boot, sequence) = node.boot();
        Handover {
            server: node.options.server.as_ref().map(ToString::to_string),
            node: node.options.mac,
            proof: node.proof(),
            boot,
            // Of the last word of this process and what is tried again of it.
            sequence: sequence + REPORTS_BETWEEN,
            machine: node.machine.clone(),
            image: image.name.clone(),
            seed,
            lease_s: self.link.lease_time().map(|time| time.as_secs()),
        }
    }

    /// Goes on in the phase 1 of another kernel. Comes back only to say why not.
    fn change_kernel(
        &mut self,
        node: &mut Node,
        phase1: &Phase1,
        image: &Image,
        line: &str,
    ) -> Result<(), Failed> {
        let version = phase1.version.as_str();
        node.console.say(&format!(
            "{} is for the kernel {version}, this is {}: loading that one.",
            image.name, node.machine.kernel
        ));
        if node.options.then != Then::Load {
            return Ok(());
        }
        other_kernel::load(&self.sources, phase1, image, &node.shell, line)?;
        node.enter(Stage::Loading { image: image.name.clone() }, &[("kernel", version)]);
        node.finish_reports(LAST_REPORT_TIMEOUT);
        let error = loader::kexec::start();
        self.link.is_down();
        Err(error.into())
    }

    /// The last step. It comes back only if it was not to be done, or to say why it failed.
    fn hand_over(
        &mut self,
        node: &mut Node,
        plan: Plan,
        download: Option<Download>,
        handover: &Handover,
    ) -> Result<(), Failed> {
        let image = &handover.image;
        let uploaded = mib(download.as_ref().map_or(0, Download::uploaded));
        if node.options.then == Then::Load {
            // What can be refused is refused here, while this node is still a peer and can say so.
            plan.load()?;
        }
        node.enter(Stage::Loading { image: image.clone() }, &[("image", image.as_str())]);
        node.console.say(&format!("{uploaded} were sent to other nodes. Goodbye."));
        node.finish_reports(LAST_REPORT_TIMEOUT);
        drop(download);
        match &node.options.then {
            Then::Load => {
                if plan.is_root() {
                    // The address stays; a socket that is left would be taken for the system's.
                    self.link.is_down();
                }
                let error = plan.start(handover);
                self.link.is_down();
                Err(error.into())
            }
            Then::Print => Ok(()),
            Then::Save(folder) => {
                plan.save(folder).map_err(|error| Failed::internal("cannot save", &error))
            }
        }
    }

    /// Says what went wrong and waits for the next attempt, or for a reason to begin it at once.
    fn wait(&mut self, node: &mut Node, failed: Failed) {
        if self.last.replace(failed.failure) != Some(failed.failure) {
            self.backoff.reset();
        }
        let wait = self.backoff.next();
        let retry_in_s = wait.as_secs_f64().ceil() as u64;
        let Failed { failure, reason } = failed;
        let console = node.console.clone();
        console.end_progress();
        console.show(&failure_screen(failure, &reason));
        console.mark(&Mark::failed(failure, &reason, retry_in_s));
        node.leave();
        node.report(Stage::Failed { failure, reason: reason.clone(), retry_in_s });
        let mut end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let retry_in_s = left.as_secs_f64().ceil() as u64;
            console.progress(&format!(
                "Next attempt in {}.  Enter: now   m: menu   l: log   s: shell   r: restart",
                duration(retry_in_s)
            ));
            node.amend(Stage::Failed { failure, reason: reason.clone(), retry_in_s });
            let tick = end.min(Instant::now() + Duration::from_secs(1));
            match node.next(tick) {
                Some(Event::Key(Key::Enter)) => break,
                Some(Event::Key(Key::Char('m') | Key::Escape)) => {
                    self.chosen = None;
                    self.is_there = true;
                    break;
                }
                Some(Event::Key(Key::Char('s') | Key::Control('s'))) => shell::run(node),
                Some(Event::Key(Key::Char('l'))) => {
                    let log = node.log.lines().join("\n");
                    console.end_progress();
                    console.show(&log);
                }
                Some(Event::Key(Key::Char('r'))) if node.options.is_init => {
                    init::restart(RebootCommand::Restart);
                }
                Some(Event::Answer(answered)) if self.is_worth_it(answered) => {
                    end = end.min(Instant::now() + RUSH.mul_f64(fastrand::f64()));
                }
                Some(_) | None => {}
            }
        }
        console.end_progress();
        self.ask_server = true;
    }

    /// Whether what the server says is a reason not to wait any longer.
    fn is_worth_it(&self, answered: Answered) -> bool {
        let known = self.manifests.as_ref().map_or(0, Manifests::serial);
        answered.after_silence || answered.serial > known
    }
}

/// How a boot ended that did not fail.
enum Booted {
    /// As it was to.
    Yes,
    /// The person at the node wants something else.
    Cancelled,
    /// It was a guest, and has ended.
    Ended,
}

/// What asking came to.
enum Asked {
    /// This is wanted.
    For(ImageName, By),
    /// The server has a manifest of another serial; somebody may have picked something already.
    Outdated { serial: u64, picked: Option<ImageName> },
}

/// Asks the person at the node. When the server says that it has a newer manifest than `known`, a menu
/// that nobody has touched is given up, and another one is not to be trusted any more.
fn ask(node: &mut Node, manifest: &Manifest, timeout_s: Option<u64>, known: u64) -> Asked {
    let seconds = timeout_s.map_or_else(|| "none".to_owned(), |seconds| seconds.to_string());
    let default = manifest.menu.default.clone();
    node.enter(Stage::Menu, &[("default", default.as_str()), ("timeout_s", &seconds)]);
    let mut menu = Menu::new(manifest, timeout_s);
    node.console.show(&menu.list());
    let mut last = Instant::now();
    let mut newest = known;
    loop {
        show(node, &menu);
        let event = node.next(Instant::now() + Duration::from_millis(250));
        let outcome = match event {
            Some(Event::Key(key)) => menu.handle(key),
            Some(Event::Answer(answer)) if answer.serial > known && !menu.is_touched() => {
                node.console.end_page();
                node.leave();
                return Asked::Outdated { serial: answer.serial, picked: None };
            }
            Some(Event::Answer(answer)) => {
                newest = newest.max(answer.serial);
                menu.pass(last.elapsed())
            }
            Some(_) | None => menu.pass(last.elapsed()),
        };
        last = Instant::now();
        if outcome.is_some() {
            node.console.end_page();
        }
        match outcome {
            Some(Outcome::Chosen(name)) if newest > known => {
                node.leave();
                return Asked::Outdated { serial: newest, picked: Some(name) };
            }
            Some(Outcome::Chosen(name)) => return Asked::For(name, By::Menu),
            Some(Outcome::TimedOut) => return Asked::For(default, By::Default),
            Some(Outcome::Shell) => shell::run(node),
            None => {}
        }
    }
}

/// The menu, on all terminals.
fn show(node: &Node, menu: &Menu) {
    let log = node.log.lines();
    let mac = node.name();
    let server = node.options.server.as_ref().map_or_else(String::new, ToString::to_string);
    let about = About { node: &mac, machine: &node.machine, server: &server, log: &log };
    node.console.draw(&menu.prompt(), |buffer| screen::menu::draw(menu, &about, buffer));
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
