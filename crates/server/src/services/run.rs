//! How a start goes: everything that can be wrong is found before anything is served, then the
//! services begin in an order in which each finds what it needs, DHCP last, since it is what nodes
//! hear first. From there on one loop waits for signals, commands, and for a service that ends, which
//! ends the server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::dhcp::LabId;
use anyhow::{Context, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

use super::changes::Changes;
use super::control::Control;
use super::deeds::Deeds;
use super::edition::{self, BootFiles, Edition, ImageSource};
use super::facts::{self, Facts};
use super::lock::Lock;
use super::seeding::Seeding;
use super::sockets::Sockets;
use super::{dhcp, notify, tftp};
use crate::dhcp::{Control as DhcpControl, Dhcp, Setup};
use crate::fleet::{Fleet, History, SharedFleet, Strangers, UnixMs};
use crate::http::{self, About, Door, NextBoots, Orders, Site, Tell, Tls};
use crate::lab::publication::Publication;
use crate::lab::publisher::Outcome;
use crate::lab::settings::{Settings, Unknown};
use crate::leases::Leases;
use crate::tftp::{Root, Tftp};
use crate::tracker;

/// How often the nodes that have changed are written to the disk: what a crash may forget.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is looked for what may be forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(3600);

/// How often old versions of images are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What is served, before it is.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) publication: Arc<Publication>,
    pub(crate) boot_files: BootFiles,
    /// The id of the lab's key.
    pub(crate) lab: LabId,
}

/// Where a running server gets what is new.
pub(crate) struct News {
    /// Reads the lab again at once; when it returns, `events` has what came of it.
    pub(crate) reload: Arc<dyn Fn() + Send + Sync>,
    /// What came of a change to the lab.
    pub(crate) events: mpsc::UnboundedReceiver<anyhow::Result<Outcome>>,
}

/// What a running server is made of.
struct Server {
    publication: Arc<Publication>,
    boot_files: BootFiles,
    images: Vec<ImageSource>,
    facts: Facts,
    fleet: SharedFleet,
    site: Site,
    tls: Option<Tls>,
    root: watch::Sender<Arc<Root>>,
    dhcp: Option<DhcpControl>,
    lab: LabId,
    seeding: Seeding,
    services: JoinSet<anyhow::Error>,
    commands: mpsc::Receiver<Command>,
    news: News,
    /// A reload under way, and who waits for it.
    reloading: Option<Reloading>,
    history: Arc<Mutex<History>>,
}

/// What a server has besides what it publishes and its sockets.
struct Around {
    fleet: SharedFleet,
    root: watch::Sender<Arc<Root>>,
    history: History,
    news: News,
    next: NextBoots,
    orders: Orders,
    wishes: Wishes,
}

/// What is done for who asks the web server, or the socket in the lab.
struct Wishes {
    perform: Deeds,
    reload: Tell<Changes>,
    stop: Tell<()>,
}

struct Reloading {
    /// Reads what there is, on a thread that may take its time.
    reader: JoinHandle<()>,
    /// What came of it, if that was told already.
    answer: Option<Reloaded>,
    replies: Vec<oneshot::Sender<Reloaded>>,
}

/// What a command wants of the main loop.
enum Command {
    Stop(oneshot::Sender<Result<(), String>>),
    Reload(oneshot::Sender<Reloaded>),
}

/// What came of a reload, or why nothing did.
type Reloaded = Result<Changes, String>;

/// Why the main loop is left.
enum End {
    Asked,
    Failed(anyhow::Error),
}

/// Serves until somebody wants an end. `ready` is called once nodes can boot.
///
/// # Errors
/// If something is in the way at the start, or a service fails later.
pub(crate) async fn run(
    prepared: Prepared,
    news: News,
    lock: Lock,
    ready: impl FnOnce(&Settings),
) -> anyhow::Result<()> {
    let publication = Arc::clone(&prepared.publication);
    let settings = &publication.settings;
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let edition = edition::make(&publication, &prepared.boot_files, &[])?;
    let (root, roots) = watch::channel(Arc::clone(&edition.tftp));
    let sockets = Sockets::bind(settings, roots, prepared.lab)?;
    let control = Control::open(settings.dir()).context("cannot open state/control.sock")?;
    let history = History::open(settings.dir())?;
    let nodes = history.load().context("cannot read the history of nodes")?;
    let fleet = SharedFleet::new(Fleet::restore(nodes));
    configure(&fleet, settings);
    let next = NextBoots::open(settings.dir())?;
    let orders = Orders::default();
    let (sender, commands) = mpsc::channel(1);
    let (settings_of, fleet_of) = (settings.clone(), fleet.clone());
    let deeds = Deeds::new(settings_of, fleet_of, next.clone(), orders.clone(), reload(&sender));
    let wishes = Wishes { perform: deeds, reload: reload(&sender), stop: stop(&sender) };
    let around = Around { fleet, root, history, news, next, orders, wishes };
    let mut server = Server::begin(prepared, edition, sockets, around)?;
    server.commands = commands;
    let router = server.site.clone().router();
    server.services.spawn(async move {
        control.serve(router).await;
        anyhow!("the control socket failed")
    });
    ready(settings);
    server.site.set_ready(true);
    notify::tell("READY=1");
    let end = server.wait(&mut signals).await;
    server.site.set_ready(false);
    notify::tell("STOPPING=1");
    server.finish(&mut signals).await;
    drop(lock);
    match end {
        End::Asked => Ok(()),
        End::Failed(error) => Err(error),
    }
}

impl Server {
    fn begin(
        prepared: Prepared,
        edition: Edition,
        sockets: Sockets,
        around: Around,
    ) -> anyhow::Result<Self> {
        let Around { fleet, root, history, news, next, orders, wishes } = around;
        let Prepared { publication, boot_files, lab } = prepared;
        let settings = &publication.settings;
        let mut services = JoinSet::new();
        let tracker = tracker::Shared::new().context("no randomness from the system")?;
        let has_tracker = sockets.tracker.is_some();
        if let Some((tcp, udp)) = sockets.tracker {
            let tracker = tracker.clone();
            services.spawn(async move {
                tracker::serve(tcp, udp, tracker).await;
                anyhow!("the tracker ended")
            });
        }
        let listen = SocketAddr::from((settings.address, settings.seeding.port));
        let mut seeding = Seeding::start(listen, &settings.seeding).context("cannot seed")?;
        seeding.publish(&edition.images);
        let (address, interface) = (settings.address.to_string(), settings.interface.clone());
        let facts = Facts::new(settings.dir.clone(), interface, address, fleet.clone());
        facts.publish(&edition);
        let about = about(&facts, &seeding, settings, wishes);
        let site = Site::new(edition.live, fleet.clone(), next, orders, about);
        services.spawn(watch_fleet(site.clone()));
        facts.add(facts::http(site.clone()));
        facts.add(facts::tracker(has_tracker.then_some(tracker)));
        facts.add(facts::seeding(seeding.counts()));
        let (router, keeper) = (site.clone().router(), site.keeper());
        services.spawn(async move {
            http::serve(sockets.http, Door::Plain, router, keeper).await;
            anyhow!("the web server ended")
        });
        let tls = sockets.tls.map(|(listener, tls)| {
            let (door, router) = (Door::Tls(tls.clone()), site.clone().router());
            let keeper = site.keeper();
            services.spawn(async move {
                http::serve(listener, door, router, keeper).await;
                anyhow!("the encrypted web server ended")
            });
            tls
        });
        match sockets.tftp {
            Some(tftp) => serve_tftp(&mut services, &facts, &fleet, tftp),
            None => facts.add(Box::new(|| facts::off("tftp"))),
        }
        // Last: from here on nodes come.
        let dhcp = sockets.dhcp.as_ref().map(Dhcp::control);
        match sockets.dhcp {
            Some(dhcp) => serve_dhcp(&mut services, &facts, &fleet, dhcp),
            None => facts.add(Box::new(|| facts::off("dhcp"))),
        }
        Ok(Self {
            images: edition.images,
            publication,
            boot_files,
            facts,
            fleet,
            site,
            tls,
            root,
            dhcp,
            lab,
            seeding,
            services,
            commands: mpsc::channel(1).1,
            news,
            reloading: None,
            history: Arc::new(Mutex::new(history)),
        })
    }

    async fn wait(&mut self, signals: &mut Signals) -> End {
        let mut save = tokio::time::interval(SAVE_INTERVAL);
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        let mut forget = tokio::time::interval(FORGET_INTERVAL);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut alive = notify::watchdog();
        loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::End => return End::Asked,
                    Wish::Reload => self.begin_reload(None),
                },
                Some(command) = self.commands.recv() => match command {
                    Command::Stop(reply) => {
                        let _ = reply.send(Ok(()));
                        return End::Asked;
                    }
                    Command::Reload(reply) => self.begin_reload(Some(reply)),
                },
                () = reading(&mut self.reloading) => self.reloaded(),
                Some(told) = self.news.events.recv() => self.changed(told),
                Some(ended) = self.services.join_next() => {
                    let error = ended.unwrap_or_else(|error| anyhow!(error));
                    tracing::error!(target: "START", "{error:#}; the server ends");
                    return End::Failed(error);
                }
                _ = save.tick() => self.save().await,
                _ = forget.tick() => {
                    let keep = self.publication.settings.history.as_millis();
                    let until = UnixMs::now().0.saturating_sub(u64::try_from(keep).unwrap_or(u64::MAX));
                    self.fleet.lock().forget_until(UnixMs(until));
                }
                _ = sweep.tick() => {
                    self.seeding.sweep();
                    self.site.sweep();
                }
                () = alive.due() => notify::tell("WATCHDOG=1"),
            }
        }
    }

    /// Reads the configuration again; whoever wants that meanwhile gets the same answer.
    fn begin_reload(&mut self, reply: Option<oneshot::Sender<Reloaded>>) {
        let reload = Arc::clone(&self.news.reload);
        let reloading = self.reloading.get_or_insert_with(|| {
            notify::tell("RELOADING=1");
            let reader = tokio::task::spawn_blocking(move || reload());
            Reloading { reader, answer: None, replies: vec![] }
        });
        reloading.replies.extend(reply);
    }

    /// A reload has come to its end.
    fn reloaded(&mut self) {
        while let Ok(told) = self.news.events.try_recv() {
            self.changed(told);
        }
        notify::tell("READY=1");
        if let Some(Reloading { answer, replies, .. }) = self.reloading.take() {
            let nothing = || Err("the lab was not read: see the log".to_owned());
            let answer = answer.unwrap_or_else(nothing);
            for reply in replies {
                let _ = reply.send(answer.clone());
            }
        }
    }

    /// The lab was read again: publishes what is new, and says what came of it.
    fn changed(&mut self, told: anyhow::Result<Outcome>) {
        let answer = match told.and_then(|outcome| self.publish(&outcome)) {
            Ok(changes) => {
                tracing::info!(target: "LAB", "read again: {}", changes.text());
                Ok(changes)
            }
            Err(error) => {
                let text = format!("not reloaded, all stays as it was: {error:#}");
                tracing::error!(target: "LAB", "{text}");
                Err(text)
            }
        };
        if let Some(reloading) = &mut self.reloading {
            reloading.answer = Some(answer);
        }
    }

    fn publish(&mut self, outcome: &Outcome) -> anyhow::Result<Changes> {
        let changes = Changes::between(&self.publication, outcome);
        // Also if nothing else is new: a certificate is renewed under the same name.
        let files = &outcome.publication.settings.dashboard.tls;
        if let (Some(tls), Some(files)) = (&self.tls, files) {
            tls.reload(files)?;
        }
        if outcome.is_new {
            let edition = edition::make(&outcome.publication, &self.boot_files, &self.images)?;
            self.facts.publish(&edition);
            self.root.send_replace(edition.tftp);
            self.site.publish(edition.live);
            self.seeding.publish(&edition.images);
            self.images = edition.images;
            let settings = &outcome.publication.settings;
            configure(&self.fleet, settings);
            if let Some(dhcp) = &self.dhcp
                && let Some(setup) = Setup::of(settings, self.lab)?
            {
                dhcp.configure(setup).context("these DHCP settings cannot be followed")?;
            }
            self.publication = Arc::clone(&outcome.publication);
        }
        Ok(changes)
    }

    async fn save(&self) {
        let changed = self.fleet.lock().take_dirty();
        if changed.is_empty() {
            return;
        }
        let history = Arc::clone(&self.history);
        let saved = tokio::task::spawn_blocking(move || {
            history.lock().unwrap_or_else(PoisonError::into_inner).save(&changed)
        });
        if let Ok(Err(error)) = saved.await {
            tracing::error!(target: "NODE", "the history of nodes is not saved: {error}");
        }
    }

    /// Ends everything; a second signal ends it at once.
    async fn finish(self, signals: &mut Signals) {
        self.save().await;
        let Self { seeding, mut services, .. } = self;
        // The tracker and the web server run on meanwhile: the seeder says goodbye to the one.
        let farewell = tokio::task::spawn_blocking(move || drop(seeding));
        tokio::select! {
            _ = farewell => {}
            _ = signals.next() => {}
        }
        services.abort_all();
        while services.join_next().await.is_some() {}
    }
}

fn serve_tftp(
    services: &mut JoinSet<anyhow::Error>,
    facts: &Facts,
    fleet: &SharedFleet,
    server: Tftp,
) {
    let counts = Arc::new(tftp::Counts::default());
    facts.add(tftp::teller(Arc::clone(&counts)));
    let (sender, mut events) = mpsc::channel(tftp::EVENTS_MAX);
    let fleet = fleet.clone();
    services.spawn(async move {
        // Its thread ends when this task does.
        let serving = server.run(sender, std::future::pending());
        let noting = async {
            while let Some(event) = events.recv().await {
                tftp::note(&event, &counts, &fleet);
            }
        };
        match tokio::join!(serving, noting).0 {
            Ok(()) => anyhow!("the TFTP server ended"),
            Err(error) => error,
        }
    });
}

fn serve_dhcp(
    services: &mut JoinSet<anyhow::Error>,
    facts: &Facts,
    fleet: &SharedFleet,
    server: Dhcp,
) {
    facts.add(dhcp::teller(server.control()));
    let (sender, mut events) = mpsc::channel(dhcp::EVENTS_MAX);
    let fleet = fleet.clone();
    services.spawn(async move {
        // Its threads end when the process does.
        let serving = server.run(sender, std::future::pending());
        let noting = async {
            while let Some(event) = events.recv().await {
                if let Some(event) = crate::dhcp::told(&event) {
                    fleet.tell(&event);
                }
            }
        };
        match tokio::join!(serving, noting).0 {
            Ok(()) => anyhow!("the DHCP server ended"),
            Err(error) => error,
        }
    });
}

/// What the web server may ask.
fn about(facts: &Facts, seeding: &Seeding, settings: &Settings, wishes: Wishes) -> About {
    let Wishes { perform: deeds, reload, stop } = wishes;
    let (facts, dir) = (facts.clone(), settings.dir.clone());
    let (offered, versions) = (facts.clone(), deeds.versions());
    About {
        started: facts.started(),
        address: settings.address.into(),
        status: Box::new(move || facts.status()),
        seeding: Box::new(seeding.counts()),
        leases: Box::new(move || Leases::open(&dir)?.load()),
        versions: Box::new(move || {
            versions.of(|| offered.status().images.into_iter().map(|image| image.name).collect())
        }),
        lab: settings.dir.clone(),
        perform: Box::new(move |deed| {
            let deeds = deeds.clone();
            Box::pin(async move { deeds.perform(deed).await })
        }),
        reload,
        stop,
    }
}

/// Has the main loop read the configuration.
fn reload(commands: &mpsc::Sender<Command>) -> Tell<Changes> {
    let commands = commands.clone();
    Arc::new(move || {
        let commands = commands.clone();
        Box::pin(async move { tell(&commands, Command::Reload).await })
    })
}

/// Has the main loop end.
fn stop(commands: &mpsc::Sender<Command>) -> Tell<()> {
    let commands = commands.clone();
    Arc::new(move || {
        let commands = commands.clone();
        Box::pin(async move { tell(&commands, Command::Stop).await })
    })
}

/// Tells the main loop something and waits for its answer.
async fn tell<T>(
    commands: &mpsc::Sender<Command>,
    command: fn(oneshot::Sender<Result<T, String>>) -> Command,
) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    let gone = || Err("the server ends".to_owned());
    match commands.send(command(reply)).await {
        Ok(()) => answer.await.unwrap_or_else(|_| gone()),
        Err(_) => gone(),
    }
}

async fn watch_fleet(site: Site) -> anyhow::Error {
    http::run_feed(site).await;
    anyhow!("nobody watches the fleet any more")
}

/// The end of a reload, if one is under way.
async fn reading(reloading: &mut Option<Reloading>) {
    match reloading {
        // If it panicked there is no answer, which is told as such.
        Some(reloading) => drop((&mut reloading.reader).await),
        None => std::future::pending().await,
    }
}

/// Tells the fleet which nodes the configuration names.
fn configure(fleet: &SharedFleet, settings: &Settings) {
    let strangers = Strangers {
        boot: settings.unknown == Unknown::Boot,
        are_listed: settings.unknown != Unknown::Ignore,
        ignored: settings.ignored.iter().copied().collect(),
    };
    let mut fleet = fleet.lock();
    fleet.receive(strangers);
    fleet.configure(UnixMs::now(), &http::named(settings));
}

/// The signals that mean something.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

/// What a signal means.
enum Wish {
    End,
    Reload,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.interrupt.recv() => Wish::End,
            _ = self.terminate.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::tests::{prepared, settings};

    /// Why a server ends that has one more service.
    async fn end_with(service: impl Future<Output = anyhow::Error> + Send + 'static) -> String {
        let temp = tempfile::tempdir().unwrap();
        let prepared = prepared(settings(temp.path()));
        let publication = Arc::clone(&prepared.publication);
        let edition = edition::make(&publication, &prepared.boot_files, &[]).unwrap();
        let (root, roots) = watch::channel(Arc::clone(&edition.tftp));
        let sockets = Sockets::bind(&publication.settings, roots, prepared.lab).unwrap();
        let history = History::open(temp.path()).unwrap();
        let (_sender, events) = mpsc::unbounded_channel();
        let news = News { reload: Arc::new(|| ()), events };
        let fleet = SharedFleet::new(Fleet::default());
        let (next, orders) = (NextBoots::default(), Orders::default());
        let (commands, _commands) = mpsc::channel(1);
        let (reload, stop) = (reload(&commands), stop(&commands));
        let settings = publication.settings.clone();
        let (fleet_of, reload_of) = (fleet.clone(), Arc::clone(&reload));
        let perform = Deeds::new(settings, fleet_of, next.clone(), orders.clone(), reload_of);
        let wishes = Wishes { perform, reload, stop };
        let around = Around { fleet, root, history, news, next, orders, wishes };
        let mut server = Server::begin(prepared, edition, sockets, around).unwrap();
        server.services.spawn(service);
        match server.wait(&mut Signals::new().unwrap()).await {
            End::Failed(error) => format!("{error:#}"),
            End::Asked => panic!("nobody asked"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_ends_or_panics_ends_the_server_and_says_why() {
        let ended = end_with(async { anyhow!("the cable burns").context("no more DHCP") }).await;
        assert_eq!(ended, "no more DHCP: the cable burns");
        let panicked = end_with(async { panic!("a bug") }).await;
        assert!(panicked.contains("panicked") && panicked.contains("a bug"), "{panicked}");
    }
}
