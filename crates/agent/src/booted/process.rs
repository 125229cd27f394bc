//! The process itself.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use boot::manifest::Discovery;
use boot::{ImageName, Stage};
use torrent::metainfo::Metainfo;
use torrent_io::storage::{Layout, Storage};

use super::seeding::{Seeding, Terms};
use super::{Handover, READY, Seed, system};
use crate::events::Event;
use crate::failed::chain;
use crate::log::Log;
use crate::network::{Network, NetworkConfig};
use crate::report::{Correspondence, Reporter};

/// How often it looks around.
const TICK: Duration = Duration::from_secs(1);

/// How long it may take to say goodbye at the end: to the tracker and to the server.
const FAREWELL: Duration = Duration::from_millis(500);

/// The kernel ends this process before any of the system's when there is no memory left: what it takes
/// is little, but nobody misses it.
const OOM_SCORE: &str = "1000";

/// How much it gives way when processors are short.
const NICE: i32 = 10;

/// Seeds and reports until the system ends.
///
/// # Errors
/// If there is nothing to begin with.
pub(crate) fn run() -> anyhow::Result<()> {
    give_way();
    let handover = Handover::load()?;
    let (sender, events) = channel();
    let stop = Terminated::arm();
    let mut booted = Booted::new(&handover, sender)?;
    booted.seeding.resume();
    say_ready();
    let mut lease = Lease::new(&handover);
    let mut looked = Instant::now();
    loop {
        booted.hear(&events, looked + TICK);
        let elapsed = looked.elapsed();
        looked = Instant::now();
        if stop.is_set() || system::ends() {
            break;
        }
        booted.look_around(elapsed);
        lease.look_after();
    }
    booted.finish();
    Ok(())
}

fn give_way() {
    // The kernel knows it by the link that it was started from.
    let _ = rustix::thread::set_name(c"boottorrent");
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    // SAFETY: a system call on this process alone.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}

fn say_ready() {
    let mut out = io::stdout();
    let _ = out.write_all(READY).and_then(|()| out.flush());
    // Whoever waited goes away; nothing of this process is ever in a system's way.
    if let Ok(null) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// A system that is not systemd's says goodbye by SIGTERM.
struct Terminated(Arc<std::sync::atomic::AtomicBool>);

impl Terminated {
    fn arm() -> Self {
        let set: Arc<std::sync::atomic::AtomicBool> = Arc::default();
        let flag = Arc::clone(&set);
        // SAFETY: the set is initialised by sigemptyset before anything reads it; it is of this thread
        // and of all that it starts.
        let signals = unsafe {
            let mut signals = std::mem::zeroed();
            libc::sigemptyset(&raw mut signals);
            libc::sigaddset(&raw mut signals, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut());
            signals
        };
        let wait = move || {
            let mut signal = 0;
            // SAFETY: both are valid for the time of the call.
            while unsafe { libc::sigwait(&raw const signals, &raw mut signal) } != 0 {}
            flag.store(true, std::sync::atomic::Ordering::Relaxed);
        };
        // Without the thread SIGTERM is passed over, and SIGKILL follows.
        let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
        Self(set)
    }

    fn is_set(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

struct Booted {
    image: ImageName,
    seeding: Seeding,
    has_begun: bool,
    reporter: Reporter,
}

impl Booted {
    fn new(handover: &Handover, sender: Sender<Event>) -> anyhow::Result<Self> {
        let machine = handover.machine.clone();
        let log = Log::default();
        let reporter = Reporter::resume(
            handover.boot,
            handover.sequence,
            machine.clone(),
            log,
            sender.clone(),
        );
        if let Some(proof) = handover.proof.clone() {
            reporter.prove_by(proof);
        }
        let server = handover.server.as_deref().and_then(|server| server.parse().ok());
        if let (Some(server), Some(node)) = (server, handover.node) {
            reporter.address(Correspondence { server, node }, machine);
        }
        let seed = handover.seed.as_ref();
        let terms = Terms {
            discovery: Discovery {
                lsd: seed.is_some_and(|seed| seed.lsd),
                pex: seed.is_some_and(|seed| seed.pex),
            },
            upload_limit_bytes_per_s: seed.and_then(|seed| seed.upload_limit_bytes_per_s),
            uploaded_bytes: seed.map_or(0, |seed| seed.uploaded_bytes),
        };
        let torrents = seed.map(open).transpose()?.into_iter().collect();
        Ok(Self {
            image: handover.image.clone(),
            seeding: Seeding::new(torrents, terms, 0, sender),
            has_begun: false,
            reporter,
        })
    }

    /// Takes in what happens until `deadline`.
    fn hear(&mut self, events: &Receiver<Event>, deadline: Instant) {
        loop {
            match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Session(number, event)) => self.seeding.take(number, event),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look_around(&mut self, elapsed: Duration) {
        self.seeding.look_around(elapsed);
        if self.has_begun {
            self.reporter.amend(self.stage());
        } else if system::has_begun() {
            self.has_begun = true;
            self.reporter.submit(self.stage());
        }
    }

    fn stage(&self) -> Stage {
        Stage::Booted { image: Some(self.image.clone()), seeding: self.seeding.state() }
    }

    /// The system ends: peers are told through the tracker, and the server that nothing is seeded.
    fn finish(mut self) {
        self.seeding.suspend();
        self.reporter.submit(Stage::booted(Some(self.image.clone())));
        self.reporter.finish(FAREWELL);
    }
}

fn open(seed: &Seed) -> anyhow::Result<(Metainfo, Arc<Storage>)> {
    let metainfo = Metainfo::decode(&std::fs::read(&seed.torrent)?)?;
    let storage = Storage::seed(&seed.dir, Layout::try_from(&metainfo)?)?;
    Ok((metainfo, Arc::new(storage)))
}

/// The lease that phase 1 had. The address stays on the interface by itself; a system that has a DHCP
/// client gets the same one for the same card and keeps it from then on. For one that has none, it is
/// asked for anew when half of its time has passed (RFC 2131 section 4.4.5).
struct Lease {
    renew_at: Option<Instant>,
    mac: Option<boot::Mac>,
    boot_server: Option<std::net::Ipv4Addr>,
    /// Keeps it; the interface is the only one that phase 1 had.
    network: Option<Network>,
}

impl Lease {
    fn new(handover: &Handover) -> Self {
        let server = handover.server.as_deref();
        let server: Option<crate::http::ServerUrl> = server.and_then(|server| server.parse().ok());
        Self {
            renew_at: handover.lease_s.map(|s| Instant::now() + Duration::from_secs(s / 2)),
            mac: handover.node,
            boot_server: server.and_then(|server| server.address()),
            network: None,
        }
    }

    fn look_after(&mut self) {
        let ours = usize::from(self.network.is_some());
        if system::dhcp_client_count() > ours {
            // From now on it is the system's. The address stays where it is.
            self.renew_at = None;
            self.network = None;
        }
        if self.renew_at.is_some_and(|at| at <= Instant::now()) {
            self.renew_at = None;
            let config = NetworkConfig {
                preferred: self.mac,
                boot_server: self.boot_server,
                // That of the system.
                resolv_conf: None,
                ..NetworkConfig::default()
            };
            match Network::bring_up(&config, &mut |_| {}) {
                Ok(network) => self.network = Some(network),
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the lease is not kept for now");
                    self.renew_at = Some(Instant::now() + Duration::from_secs(60));
                }
            }
        }
    }
}
