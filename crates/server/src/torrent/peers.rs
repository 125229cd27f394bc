//! What `seed` and `get` have in common: how to be a peer.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use ::torrent::metainfo::Metainfo;
use ::torrent::wire;
use anyhow::Context;
use boot::manifest::Discovery;
use clap::Args;
use torrent_io::engine::{EngineConfig, Known};
use torrent_io::session::{
    Place, Prepared, Session, SessionConfig, SessionError, SessionEvent, TorrentKey,
};

use super::hash_threads;
use crate::progress::Console;
use crate::quantity;
use crate::signals::{self, Signal};

/// The port that BitTorrent clients are expected at (BEP 3), if nobody else is there.
const PORT: u16 = 6881;

#[derive(Clone, Debug, Args)]
pub(crate) struct PeerArgs {
    /// Where peers may connect; port 0 takes a free one. [::]:PORT is IPv4 and IPv6. By default
    /// port 6881 of all addresses, or a free port if that is taken.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Upload at most so many bytes a second, such as 10M or 1.5G.
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_rate)]
    upload_limit: Option<u64>,
    /// Download at most so many bytes a second, such as 10M or 1.5G.
    #[arg(long, value_name = "RATE", value_parser = quantity::parse_rate)]
    download_limit: Option<u64>,
    /// Do not look for peers on the local network by multicast.
    #[arg(long)]
    no_lsd: bool,
    /// Do not exchange addresses of peers with peers.
    #[arg(long)]
    no_pex: bool,
    /// A peer to connect to, besides those that are found. Can be repeated.
    #[arg(long = "peer", value_name = "ADDR:PORT")]
    pub(crate) peers: Vec<SocketAddr>,
}

/// What `seed` and `get` wait for.
#[derive(Debug)]
pub(super) enum Event {
    Session(TorrentKey, SessionEvent),
    Signal(Signal),
    /// The command of `--on-complete` is over.
    Command(anyhow::Result<()>),
}

impl PeerArgs {
    /// Where to listen: known before files are hashed, which can take minutes.
    pub(crate) fn choose_listen(&self) -> anyhow::Result<SocketAddr> {
        // Nobody is let in before the files are checked, so it is only tried out.
        let free = |addr: SocketAddr| TcpListener::bind(addr).map(|_| addr);
        if let Some(addr) = self.listen {
            return free(addr).with_context(|| {
                format!("cannot listen on {addr}; choose another address with --listen")
            });
        }
        let any = |port| {
            // A machine without IPv6.
            free((Ipv6Addr::UNSPECIFIED, port).into())
                .or_else(|_| free((Ipv4Addr::UNSPECIFIED, port).into()))
        };
        any(PORT).or_else(|_| any(0)).context("cannot listen on any port; choose one with --listen")
    }

    /// Without the ways to find peers that a lab does not want.
    pub(crate) fn within(&self, discovery: &Discovery) -> Self {
        let no_lsd = self.no_lsd || !discovery.lsd;
        let no_pex = self.no_pex || !discovery.pex;
        Self { no_lsd, no_pex, ..self.clone() }
    }

    pub(crate) fn start(
        &self,
        listen: SocketAddr,
        tell: impl FnMut(TorrentKey, SessionEvent) + Send + 'static,
    ) -> anyhow::Result<Session> {
        let random_seed = getrandom::u64().context("no randomness from the system")?;
        let config = SessionConfig {
            engine: EngineConfig {
                listen,
                peer_id: wire::peer_id(random_seed),
                random_seed,
                upload_limit: self.upload_limit,
                download_limit: self.download_limit,
                pex: !self.no_pex,
                known: Known::default(),
            },
            lsd: !self.no_lsd,
            user_agent: concat!("BootTorrent/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        Ok(Session::start(config, tell)?)
    }
}

/// Passes on what a session tells. Who does not listen any more is about to end.
pub(super) fn told(events: Sender<Event>) -> impl FnMut(TorrentKey, SessionEvent) + Send {
    move |key, event| {
        let _ = events.send(Event::Session(key, event));
    }
}

/// Ctrl+C and SIGTERM, as events and as a flag for who does not look at events.
pub(crate) struct Stop {
    flag: Arc<AtomicBool>,
}

impl Stop {
    pub(super) fn watch(events: Sender<Event>) -> anyhow::Result<Self> {
        Self::with(move |signal| {
            let _ = events.send(Event::Signal(signal));
        })
    }

    /// Calls `on` at the first signal, after the flag is raised.
    pub(crate) fn with(on: impl FnOnce(Signal) + Send + 'static) -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let raise = flag.clone();
        signals::watch(move |signal| {
            raise.store(true, Ordering::Relaxed);
            on(signal);
        })?;
        Ok(Self { flag })
    }

    /// True once a signal has come.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Opens and checks a torrent; `None` if a signal came meanwhile.
    pub(super) fn prepare(
        &self,
        metainfo: Metainfo,
        place: &Place,
        console: &mut Console,
    ) -> anyhow::Result<Option<Prepared>> {
        let name = metainfo.name().to_owned();
        let prepared =
            Prepared::open(metainfo, place, hash_threads(), &self.flag, &mut |progress| {
                let (done, total) = (progress.checked.into(), progress.piece_count.into());
                console.hashing("checking", &name, done, total);
            });
        match prepared {
            Ok(prepared) => Ok(Some(prepared)),
            Err(SessionError::Cancelled { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What a human is told of events that change nothing for the command.
pub(crate) fn warn(console: &Console, event: &SessionEvent) {
    let text = match event {
        SessionEvent::Banned(peer) => {
            format!("peer {peer} sent corrupt data and is not connected to any more")
        }
        SessionEvent::WebSeed { url, trouble } => format!("{url}: {}", chain(trouble)),
        SessionEvent::TrackerFailed(error) => format!("{}; it is asked again", chain(error)),
        SessionEvent::TrackerWarning { url, text } => format!("tracker {url} warns: {text}"),
        SessionEvent::NotSaved(error) => {
            format!("the next start will have to hash everything: {}", chain(error))
        }
        SessionEvent::LsdFailed(error) => {
            format!("peers on the local network are not looked for: {}", chain(error))
        }
        SessionEvent::Completed
        | SessionEvent::Failed(_)
        | SessionEvent::Progress(_)
        | SessionEvent::Sources(_) => return,
    };
    console.warn(&text);
}

/// An error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The exit status of a command that a signal ended before its work was done.
pub(super) fn interrupted(events: &std::sync::mpsc::Receiver<Event>) -> ExitCode {
    let signal = events.try_iter().find_map(|event| match event {
        Event::Signal(signal) => Some(signal),
        _ => None,
    });
    signal.unwrap_or(Signal::Interrupt).exit_code()
}
