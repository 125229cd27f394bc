//! How a start goes: everything that can be wrong is found before anything is served, then the
//! services begin in an order in which each finds what it needs, DHCP last, since it is what nodes
//! hear first. From there on one loop waits for signals, commands, and for a service that ends, which
//! ends the server. It only routes: nothing in it waits for the disk, for a lock, or for what is published
//! ([`Press`]), so that whoever wants an end, a reload or a sign of life (the watchdog) has it at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::dhcp::LabId;
use anyhow::{Context, anyhow};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::changes::Changes;
use super::control::Control;
use super::deeds::Deeds;
use super::edition::{self, BootFiles, Edition};
use super::facts::{self, Facts};
use super::lock::Lock;
use super::notify::Watchdog;
use super::press::{Ask, Press, Reloaded};
use super::seeding::Seeding;
use super::sockets::Sockets;
use super::{dhcp, notify, tftp};
use crate::dhcp::Dhcp;
use crate::fleet::{
    DhcpRole, Fleet, History, Keeper, ProofKey, SharedFleet, Strangers, UnixMs, keep_in_lab,
};
use crate::http::{self, About, Door, NextBoots, Orders, Site, Tell, Tls, Wait};
use crate::lab::HashingProgress;
use crate::lab::key;
use crate::lab::publication::Publication;
use crate::lab::publisher::Outcome;
use crate::lab::settings::{Settings, Unknown};
use crate::leases::Leases;
use crate::tftp::{Root, Tftp};
use crate::tracker;

/// How long the end waits for what is being published: it ends as soon as nothing is, and what hangs on a
/// dead disk must not keep a service from ending.
const PRESS_END_MAX: Duration = Duration::from_secs(3);

/// What is served, before it is.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) publication: Arc<Publication>,
    pub(crate) boot_files: BootFiles,
    /// The id of the lab's key.
    pub(crate) lab: LabId,
    /// Images that follow once they are hashed.
    pub(crate) hashing: HashingProgress,
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
    site: Site,
    services: JoinSet<anyhow::Error>,
    commands: mpsc::Receiver<Command>,
    /// Reads the lab again at once.
    reload: Arc<dyn Fn() + Send + Sync>,
    /// Has what was read published before it answers.
    asks: mpsc::Sender<Ask>,
    /// Returns what seeds once nobody can ask any more.
    press: JoinHandle<Seeding>,
    /// A reload under way, and who waits for it.
    reloading: Option<Reloading>,
    history: Keeper,
    alive: Watchdog,
}

/// What a server has besides what it publishes and its sockets.
struct Around {
    fleet: SharedFleet,
    root: watch::Sender<Arc<Root>>,
    history: Keeper,
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
    task: JoinHandle<Reloaded>,
    replies: Vec<oneshot::Sender<Reloaded>>,
}

/// What a command wants of the main loop.
enum Command {
    Stop(oneshot::Sender<Result<(), String>>),
    Reload(oneshot::Sender<Reloaded>),
}

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
    let nodes = History::read(settings.dir());
    let fleet = SharedFleet::new(Fleet::restore(nodes, &http::named(settings)));
    configure(&fleet, settings);
    let history = Keeper::start(fleet.clone(), keep_in_lab(settings.dir().to_owned()));
    let history = history.context("cannot start the thread that keeps the history")?;
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
        let Prepared { publication, boot_files, lab, hashing } = prepared;
        let settings = &publication.settings;
        let mut services = JoinSet::new();
        let tracker =
            tracker::Shared::new(fleet.standings()).context("no randomness from the system")?;
        let has_tracker = sockets.tracker.is_some();
        if let Some((tcp, udp)) = sockets.tracker {
            let tracker = tracker.clone();
            services.spawn(async move {
                tracker::serve(tcp, udp, tracker).await;
                anyhow!("the tracker ended")
            });
        }
        let listen = SocketAddr::from((settings.address, settings.seeding.port));
        let mut seeding =
            Seeding::start(listen, &settings.seeding, fleet.standings()).context("cannot seed")?;
        seeding.publish(&edition.images);
        let (address, interface) = (settings.address.to_string(), settings.interface.clone());
        let facts = Facts::new(settings.dir.clone(), interface, address, fleet.clone(), hashing);
        facts.publish(&edition);
        let leases_known = leases_known(sockets.dhcp.as_ref().map(Dhcp::control));
        let about = about(&facts, &seeding, settings, wishes, leases_known)?;
        let site = Site::new(edition.live, fleet.clone(), next, orders, about);
        services.spawn(watch_fleet(site.clone()));
        facts.add(facts::http(site.clone()));
        facts.add(facts::tracker(has_tracker.then_some(tracker)));
        facts.add(facts::seeding(seeding.counts()));
        let tls = serve_http(&mut services, &site, sockets.http, sockets.tls);
        match sockets.tftp {
            Some(tftp) => serve_tftp(&mut services, &facts, &fleet, tftp),
            None => facts.add(Box::new(|| facts::off("tftp"))),
        }
        // Last: from here on nodes come.
        let dhcp = sockets.dhcp.as_ref().map(Dhcp::control);
        if dhcp.is_some() {
            // Until it is known whether somebody else does.
            fleet.lock().set_dhcp(DhcpRole::Leases);
        }
        match sockets.dhcp {
            Some(dhcp) => serve_dhcp(&mut services, &facts, &fleet, dhcp),
            None => facts.add(Box::new(|| facts::off("dhcp"))),
        }
        let press = Press {
            images: edition.images,
            publication,
            boot_files,
            facts,
            fleet,
            site: site.clone(),
            tls,
            root,
            dhcp,
            lab,
            seeding,
            answer: None,
        };
        let (asks, asked) = mpsc::channel(1);
        let News { reload, events } = news;
        Ok(Self {
            site,
            services,
            commands: mpsc::channel(1).1,
            reload,
            asks,
            press: tokio::spawn(press.run(events, asked)),
            reloading: None,
            history,
            alive: notify::watchdog(),
        })
    }

    async fn wait(&mut self, signals: &mut Signals) -> End {
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
                answer = reading(&mut self.reloading) => self.reloaded(&answer),
                Some(ended) = self.services.join_next() => {
                    let error = ended.unwrap_or_else(|error| anyhow!(error));
                    tracing::error!(target: "START", "{error:#}; the server ends");
                    return End::Failed(error);
                }
                () = self.alive.due() => self.alive.tell(),
            }
        }
    }

    /// Reads the configuration again; whoever wants that meanwhile gets the same answer.
    fn begin_reload(&mut self, reply: Option<oneshot::Sender<Reloaded>>) {
        let (reload, asks) = (Arc::clone(&self.reload), self.asks.clone());
        let reloading = self.reloading.get_or_insert_with(|| {
            notify::tell("RELOADING=1");
            Reloading { task: tokio::spawn(read_again(reload, asks)), replies: vec![] }
        });
        reloading.replies.extend(reply);
    }

    /// A reload has come to its end.
    fn reloaded(&mut self, answer: &Reloaded) {
        notify::tell("READY=1");
        if let Some(Reloading { replies, .. }) = self.reloading.take() {
            for reply in replies {
                let _ = reply.send(answer.clone());
            }
        }
    }

    /// Ends everything; a second signal ends it at once.
    async fn finish(self, signals: &mut Signals) {
        let Self { asks, press, reloading, history, mut services, .. } = self;
        if let Some(Reloading { task, .. }) = reloading {
            task.abort();
        }
        drop(asks);
        let farewell = async {
            let saved = tokio::task::spawn_blocking(move || history.finish());
            // The tracker and the web server run on meanwhile: the seeder says goodbye to the one.
            if let Ok(Ok(seeding)) = timeout(PRESS_END_MAX, press).await {
                let _ = tokio::task::spawn_blocking(move || drop(seeding)).await;
            }
            let _ = saved.await;
        };
        tokio::select! {
            () = farewell => {}
            _ = signals.next() => {}
        }
        services.abort_all();
        while services.join_next().await.is_some() {}
    }
}

/// Reads the lab, on a thread that may take its time, and has it published; what came of it.
async fn read_again(reload: Arc<dyn Fn() + Send + Sync>, asks: mpsc::Sender<Ask>) -> Reloaded {
    let nothing = |_| "the lab was not read: see the log".to_owned();
    // If it panicked nothing was read, which is told as such.
    let _ = tokio::task::spawn_blocking(move || reload()).await;
    let (ask, answer) = oneshot::channel();
    let _ = asks.send(ask).await;
    answer.await.map_err(nothing)?
}

fn serve_http(
    services: &mut JoinSet<anyhow::Error>,
    site: &Site,
    plain: TcpListener,
    encrypted: Option<(TcpListener, Tls)>,
) -> Option<Tls> {
    let (router, keeper) = (site.clone().router(), site.keeper());
    services.spawn(async move {
        http::serve(plain, Door::Plain, router, keeper).await;
        anyhow!("the web server ended")
    });
    let (listener, tls) = encrypted?;
    let (door, router) = (Door::Tls(tls.clone()), site.clone().router());
    let keeper = site.keeper();
    services.spawn(async move {
        http::serve(listener, door, router, keeper).await;
        anyhow!("the encrypted web server ended")
    });
    Some(tls)
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
        let serving = server.run(fleet.standings(), sender, std::future::pending());
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
    let control = server.control();
    services.spawn(async move {
        // Its threads end when the process does.
        let serving = server.keep_running(sender);
        let noting = async {
            while let Some(event) = events.recv().await {
                dhcp::note(&event, &control, &fleet);
                control.noted();
            }
        };
        match tokio::join!(serving, noting).0 {}
    });
}

/// Where others give addresses, or nobody does, there is nothing to wait for.
fn leases_known(dhcp: Option<crate::dhcp::Control>) -> Wait {
    Box::new(move || match dhcp.clone() {
        Some(dhcp) => Box::pin(dhcp.caught_up()),
        None => Box::pin(std::future::ready(())),
    })
}

/// What the web server may ask.
fn about(
    facts: &Facts,
    seeding: &Seeding,
    settings: &Settings,
    wishes: Wishes,
    leases_known: Wait,
) -> anyhow::Result<About> {
    let proofs = ProofKey::of(&key::load(settings.dir())?);
    let Wishes { perform: deeds, reload, stop } = wishes;
    let (facts, dir) = (facts.clone(), settings.dir.clone());
    let (offered, versions) = (facts.clone(), deeds.versions());
    Ok(About {
        started: facts.started(),
        address: settings.address.into(),
        status: Box::new(move || facts.status()),
        seeding: Box::new(seeding.counts()),
        leases: Box::new(move || Leases::read(&dir)),
        versions: Box::new(move || {
            versions.of(|| offered.status().images.into_iter().map(|image| image.name).collect())
        }),
        proofs,
        lab: settings.dir.clone(),
        perform: Box::new(move |deed| {
            let deeds = deeds.clone();
            Box::pin(async move { deeds.perform(deed).await })
        }),
        reload,
        stop,
        leases_known,
    })
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
async fn reading(reloading: &mut Option<Reloading>) -> Reloaded {
    match reloading {
        Some(reloading) => {
            (&mut reloading.task).await.unwrap_or_else(|error| Err(error.to_string()))
        }
        None => std::future::pending().await,
    }
}

/// Tells the fleet which nodes the configuration names.
pub(super) fn configure(fleet: &SharedFleet, settings: &Settings) {
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
    use crate::fleet::{Keep, Node};
    use crate::services::tests::{prepared, settings};

    /// A server with `history`, and who may ask it; `reload` reads its lab.
    fn server(
        dir: &std::path::Path,
        history: impl FnOnce(SharedFleet) -> Keeper,
        reload_lab: impl Fn() -> anyhow::Result<Outcome> + Send + Sync + 'static,
    ) -> (Server, mpsc::Sender<Command>) {
        let prepared = prepared(settings(dir));
        let publication = Arc::clone(&prepared.publication);
        let edition = edition::make(&publication, &prepared.boot_files, &[]).unwrap();
        let (root, roots) = watch::channel(Arc::clone(&edition.tftp));
        let sockets = Sockets::bind(&publication.settings, roots, prepared.lab).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let news = News { reload: Arc::new(move || drop(sender.send(reload_lab()))), events };
        let fleet = SharedFleet::new(Fleet::default());
        let history = history(fleet.clone());
        let (next, orders) = (NextBoots::default(), Orders::default());
        let (asking, commands) = mpsc::channel(1);
        let (reload, stop) = (reload(&asking), stop(&asking));
        let settings = publication.settings.clone();
        let (fleet_of, reload_of) = (fleet.clone(), Arc::clone(&reload));
        let perform = Deeds::new(settings, fleet_of, next.clone(), orders.clone(), reload_of);
        let wishes = Wishes { perform, reload, stop };
        let around = Around { fleet, root, history, news, next, orders, wishes };
        let mut server = Server::begin(prepared, edition, sockets, around).unwrap();
        server.commands = commands;
        (server, asking)
    }

    /// Why a server ends that has one more service.
    async fn end_with(service: impl Future<Output = anyhow::Error> + Send + 'static) -> String {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        let history = |fleet| Keeper::start(fleet, keep_in_lab(dir)).unwrap();
        let (mut server, _asking) = server(temp.path(), history, || anyhow::bail!("not asked for"));
        server.services.spawn(service);
        match server.wait(&mut Signals::new().unwrap()).await {
            End::Failed(error) => format!("{error:#}"),
            End::Asked => panic!("nobody asked"),
        }
    }

    /// A disk that never takes anything.
    struct Dead(std::sync::mpsc::Receiver<()>);

    impl Keep for Dead {
        fn keep(&mut self, _: &[(boot::Mac, Option<Node>)]) -> anyhow::Result<u64> {
            let _ = self.0.recv();
            Ok(0)
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_history_that_hangs_holds_up_no_reload_no_watchdog_and_no_end() {
        let temp = tempfile::tempdir().unwrap();
        let (hangs, until) = std::sync::mpsc::channel();
        let mut disk = Some(Dead(until));
        let history = |fleet: SharedFleet| {
            let node = boot::Mac([2, 0, 0, 0, 0, 1]);
            fleet.lock().configure(UnixMs(0), &[(node, None)].into());
            fleet.note(node, "something to be kept");
            Keeper::start(fleet, move || disk.take()).unwrap()
        };
        let reload = || anyhow::bail!("line 3 is wrong");
        let (mut server, asking) = server(temp.path(), history, reload);
        let name = format!("boottorrent-alive-{}", std::process::id());
        let (alive, pings) = Watchdog::for_tests(&name, Duration::from_millis(5)).unwrap();
        server.alive = alive;
        let asked = tokio::task::spawn_blocking(move || {
            let heard = |count| (0..count).for_each(|_| assert_eq!(pings(), "WATCHDOG=1"));
            heard(300);
            let (reply, answer) = oneshot::channel();
            asking.blocking_send(Command::Reload(reply)).map_err(|_| "gone").unwrap();
            let answer = answer.blocking_recv().unwrap().unwrap_err();
            assert_eq!(answer, "not reloaded, all stays as it was: line 3 is wrong");
            heard(9);
            let (reply, answer) = oneshot::channel();
            asking.blocking_send(Command::Stop(reply)).map_err(|_| "gone").unwrap();
            answer.blocking_recv().unwrap().unwrap();
        });
        let mut signals = Signals::new().unwrap();
        assert!(matches!(server.wait(&mut signals).await, End::Asked));
        asked.await.unwrap();
        // It ends though the disk still hangs, within its bound.
        server.finish(&mut signals).await;
        drop(hangs);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_ends_or_panics_ends_the_server_and_says_why() {
        let ended = end_with(async { anyhow!("the cable burns").context("no more DHCP") }).await;
        assert_eq!(ended, "no more DHCP: the cable burns");
        let panicked = end_with(async { panic!("a bug") }).await;
        assert!(panicked.contains("panicked") && panicked.contains("a bug"), "{panicked}");
    }
}
