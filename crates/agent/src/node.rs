//! What all steps of a boot share: where to write, whom to tell, what to wait for.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use boot::keymap::Keymap;
use boot::manifest::Shell;
use boot::report::Machine;
use boot::{ImageName, Mac, Stage};

use crate::backoff;
use crate::console::{Console, Mark};
use crate::events::{Event, Inbox};
use crate::hardware;
use crate::http::ServerUrl;
use crate::init;
use crate::keyboard;
use crate::log::Log;
use crate::report::{Correspondence, Reporter};

/// How this agent runs: on a node as its first process, or elsewhere as tests want it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The folder that the initramfs is in; `/` on a node.
    pub(crate) root: PathBuf,
    /// The server, if the boot program named it.
    pub(crate) server: Option<ServerUrl>,
    /// The interface that the boot program came through.
    pub(crate) mac: Option<Mac>,
    /// What shows the server that it is this node which reports.
    pub(crate) proof: Option<String>,
    /// An operator's choice for this boot.
    pub(crate) image: Option<ImageName>,
    /// What was chosen at this node before another kernel was loaded for it.
    pub(crate) choice: Option<ImageName>,
    /// What the lab calls this node, as far as the boot program knew.
    pub(crate) name: Option<String>,
    /// Whether this is the first process of the system: it alone may mount, reboot, reap.
    pub(crate) is_init: bool,
    /// Whether the network is to be brought up.
    pub(crate) network: bool,
    /// A shell before anything is done.
    pub(crate) shell: bool,
    /// No shell before the manifest has said who gets one.
    pub(crate) no_shell: bool,
    /// Everything that happens is shown.
    pub(crate) debug: bool,
    /// What follows when the image is verified.
    pub(crate) then: Then,
    /// The first wait after a failure.
    pub(crate) retry: Duration,
    /// After so many failures this gives up; a node never does.
    pub(crate) attempts: Option<u32>,
    /// What counts as `MemAvailable`.
    pub(crate) memory: Option<u64>,
}

/// What follows when the image is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is loaded.
    Load,
    /// It is said what would be loaded.
    Print,
    /// What would be loaded is written into this folder.
    Save(PathBuf),
}

impl Options {
    /// As on a node, with nothing from the command line yet.
    pub(crate) fn of_node() -> Self {
        Self {
            root: PathBuf::from("/"),
            server: None,
            mac: None,
            proof: None,
            image: None,
            choice: None,
            name: None,
            is_init: true,
            network: true,
            shell: false,
            no_shell: false,
            debug: false,
            then: Then::Load,
            retry: backoff::FIRST,
            attempts: None,
            memory: None,
        }
    }
}

/// The node, as the steps of its boot see it.
pub(crate) struct Node {
    pub(crate) options: Options,
    pub(crate) console: Console,
    pub(crate) inbox: Inbox,
    pub(crate) machine: Machine,
    pub(crate) log: Log,
    /// Who gets a shell, as the lab says.
    pub(crate) shell: Shell,
    reporter: Reporter,
    boot: u64,
    stage: &'static str,
    /// The layout that keyboards have.
    keymap: Option<Keymap>,
    /// The next that events of a session can be told with.
    next_number: Cell<u32>,
}

impl Node {
    /// Begins to report and to listen.
    pub(crate) fn new(
        options: Options,
        console: Console,
        log: Log,
        inbox: Inbox,
        machine: Machine,
    ) -> Self {
        let boot = fastrand::u64(..);
        let reporter = Reporter::start(boot, machine.clone(), log.clone(), inbox.sender());
        if let Some(proof) = options.proof.clone() {
            reporter.prove_by(proof);
        }
        let shell = if options.no_shell { Shell::Forbidden } else { Shell::Allowed };
        let stage = "";
        let next_number = Cell::new(0);
        let node = Self {
            options,
            console,
            inbox,
            machine,
            log,
            shell,
            reporter,
            boot,
            stage,
            keymap: None,
            next_number,
        };
        // Without a network nobody is reached yet.
        if !node.options.network {
            node.introduce();
        }
        node
    }

    /// What people know it by: its Ethernet address, once that is known.
    pub(crate) fn name(&self) -> String {
        self.options.mac.map_or_else(String::new, |mac| mac.to_string())
    }

    /// Tells the server of this node from here on, as far as both are known.
    pub(crate) fn introduce(&self) {
        if let (Some(server), Some(node)) = (self.options.server.clone(), self.options.mac) {
            self.reporter.address(Correspondence { server, node }, self.machine.clone());
        }
    }

    /// Looks at what this node is made of, for the next report if that is new.
    pub(crate) fn take_stock(&self) {
        self.reporter.stock(hardware::look(&self.options.root));
    }

    /// A new stage: for programs on the console, and for the server.
    pub(crate) fn enter(&mut self, stage: Stage, facts: &[(&str, &str)]) {
        if self.stage != stage.name() {
            self.stage = stage.name();
            self.console.end_progress();
            let mark = facts
                .iter()
                .fold(Mark::stage(stage.name()), |mark, (key, value)| mark.with(key, value));
            self.console.mark(&mark);
        }
        self.reporter.submit(stage);
    }

    /// The stage that was entered last is entered anew the next time.
    pub(crate) fn leave(&mut self) {
        self.stage = "";
    }

    /// Waits until the server knows where this node is, at most `within`.
    pub(crate) fn finish_reports(&self, within: Duration) {
        self.reporter.finish(within);
    }

    /// How far the stage is that this node is in: nothing for the console.
    pub(crate) fn report(&self, stage: Stage) {
        self.reporter.submit(stage);
    }

    /// What the next report says of the stage that this node is in.
    pub(crate) fn amend(&self, stage: Stage) {
        self.reporter.amend(stage);
    }

    /// What shows the server that it is this node which reports.
    pub(crate) fn proof(&self) -> Option<String> {
        self.reporter.proof()
    }

    /// The number of this boot, and that of its last report.
    pub(crate) fn boot(&self) -> (u64, u64) {
        (self.boot, self.reporter.sequence())
    }

    /// Gives keyboards the layout of the lab, unless they have it.
    pub(crate) fn take_keymap(&mut self, keymap: Option<&Keymap>) {
        if !self.options.is_init || self.keymap.as_ref() == keymap {
            return;
        }
        self.keymap = keymap.cloned();
        if let Some(keymap) = keymap {
            match keyboard::set_layout(keymap, &self.options.root) {
                Ok(()) => self.console.say("The keyboard has the lab's layout."),
                Err(error) => self.console.say(&format!("  no other keyboard layout: {error}")),
            }
        }
    }

    /// The first of `count` numbers that no session had before.
    pub(crate) fn number(&self, count: u32) -> u32 {
        let first = self.next_number.get();
        self.next_number.set(first + count);
        first
    }

    /// For who has to report when this is out of reach.
    pub(crate) fn reporter(&self) -> Reporter {
        self.reporter.clone()
    }

    /// The next event until `deadline`. What becomes of the children of others is looked after here,
    /// as this is where a node spends its time.
    pub(crate) fn next(&self, deadline: Instant) -> Option<Event> {
        if self.options.is_init {
            init::reap();
        }
        self.inbox.next(deadline)
    }

    /// The figure that decides whether an image fits.
    pub(crate) fn available_memory(&self) -> Option<u64> {
        self.options.memory.or_else(|| crate::machine::memory(&self.options.root, "MemAvailable"))
    }
}
