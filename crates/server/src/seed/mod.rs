//! `boottorrent seed`: one more seed of a lab, on another host. It takes the lab's manifest and
//! torrents over HTTP, believes them by the lab's public key, gets the images as a node does, sends
//! them to whoever asks, and follows what the lab publishes. See docs/growing.md.
//!
//! It decides nothing: it is no server of the lab, leases nothing and signs nothing, and needs no
//! secret. While the lab's server is away it goes on with what it has, after a restart too.

mod follow;
mod shelf;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use boot::manifest::Discovery;
use boot::{Image, ImageName, LabPublicKey, hex};
use clap::Args;
use serde_json::json;
use torrent::swarm::Stats;
use torrent_io::session::{Prepared, Session, SessionEvent, TorrentKey};

use self::follow::{Follower, News};
use self::shelf::Shelf;
use self::source::{LabUrl, Source};
use crate::cli::OutputFormat;
use crate::http::FAREWELL;
use crate::lab::key::PUBLIC_FILE;
use crate::progress::{Console, Transfer, print};
use crate::quantity;
use crate::torrent::peers::{PeerArgs, Stop, warn};

/// How often versions that are not on offer any more are looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// The lab's server as nodes reach it, such as http://10.0.0.1:8080.
    #[arg(long = "lab", value_name = "URL")]
    url: LabUrl,
    /// The lab's public key, a copy of its keys/lab.pub. By default keys/lab.pub of this folder, or
    /// of the one that -C names.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The folder to keep images in. By default `seed` in this folder, or in the one that -C names.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Seed this image alone. Can be repeated.
    #[arg(long = "image", value_name = "NAME")]
    images: Vec<ImageName>,
    /// Seconds between two looks at the lab's server.
    #[arg(long, value_name = "SECONDS", default_value = "5",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    #[command(flatten)]
    peers: PeerArgs,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
}

/// What the command waits for.
#[derive(Debug)]
enum Event {
    Session(TorrentKey, SessionEvent),
    News(News),
    Signal,
}

/// Seeds until a signal; `lab` is the folder that `-C` names.
pub(crate) fn run(args: &SeedArgs, lab: &Path) -> anyhow::Result<ExitCode> {
    let result = seed(args, lab);
    if let (Err(error), OutputFormat::Json) = (&result, args.output) {
        print(&json!({"event": "error", "message": format!("{error:#}")}).to_string());
    }
    result.map(|()| ExitCode::SUCCESS)
}

fn seed(args: &SeedArgs, lab: &Path) -> anyhow::Result<()> {
    let key = read_key(args.key.clone().unwrap_or_else(|| lab.join(PUBLIC_FILE)))?;
    let shelf = Arc::new(Shelf::open(&args.dir.clone().unwrap_or_else(|| lab.join("seed")))?);
    let (sender, events) = channel();
    let signals = sender.clone();
    let stop = Stop::with(move |_| {
        let _ = signals.send(Event::Signal);
    })?;
    let follower = Follower {
        source: Source::new(args.url.clone(), key),
        key,
        shelf: Arc::clone(&shelf),
        only: args.images.clone(),
        every: Duration::from_secs(args.every),
        stop: stop.flag(),
        events: sender.clone(),
    };
    let (lost, again) = channel();
    // Not waited for at the end: it may be in the middle of a question to a server that is gone, and
    // leaves nothing half done.
    std::thread::Builder::new()
        .name("follower".to_owned())
        .spawn(move || follower.run(&again))
        .context("cannot start a thread")?;
    let console = Console::new(args.output);
    console.wait(&format!("asking {}", args.url));
    let torrents = BTreeMap::new();
    let seed = Seed { args, console, shelf, sender, lost, session: None, torrents, serial: 0 };
    seed.run(&events)
}

fn read_key(path: PathBuf) -> anyhow::Result<LabPublicKey> {
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!(
            "cannot read {}: copy {PUBLIC_FILE} of the lab here, and name it with --key",
            path.display()
        )
    })?;
    text.parse().with_context(|| format!("{} is not the public key of a lab", path.display()))
}

struct Seed<'a> {
    args: &'a SeedArgs,
    console: Console,
    shelf: Arc<Shelf>,
    sender: Sender<Event>,
    /// To the thread that opens versions: this one is to be opened again.
    lost: Sender<String>,
    /// Runs once it is known how the lab's peers find each other.
    session: Option<Session>,
    torrents: BTreeMap<TorrentKey, Torrent>,
    serial: u64,
}

/// A version of an image that runs.
struct Torrent {
    image: Image,
    total: u64,
    stats: Stats,
    began: Instant,
    is_complete: bool,
    /// Not on offer any more; since when nobody has been connected.
    retired: Option<Instant>,
}

impl Torrent {
    fn infohash(&self) -> String {
        hex::encode(&self.image.infohash)
    }
}

impl Seed<'_> {
    fn run(mut self, events: &Receiver<Event>) -> anyhow::Result<()> {
        let mut sweep_at = Instant::now() + SWEEP_INTERVAL;
        loop {
            match events.recv_timeout(sweep_at.saturating_duration_since(Instant::now())) {
                // That is how it is meant to end.
                Ok(Event::Signal) => break,
                Ok(Event::News(news)) => self.on_news(news)?,
                Ok(Event::Session(key, event)) => self.on_session(key, event),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("nobody looks at the lab any more"),
            }
            if sweep_at <= Instant::now() {
                sweep_at = Instant::now() + SWEEP_INTERVAL;
                self.sweep();
            }
        }
        self.console.finish();
        Ok(())
    }

    fn on_news(&mut self, news: News) -> anyhow::Result<()> {
        match news {
            News::Manifest { serial, discovery, wanted, is_kept } => {
                self.on_manifest(serial, &discovery, &wanted, is_kept)?;
            }
            News::Checking { name, done, total } => {
                self.console.hashing("checking", name.as_str(), done, total);
            }
            News::Ready(image, prepared) => self.on_ready(image, *prepared),
            News::Trouble(text) => self.console.warn(&format!("{text}; it is tried again")),
            News::Refused(error) => {
                let context = "this is not the lab whose key was given, or not for this program";
                return Err(anyhow::Error::from(error).context(context));
            }
        }
        Ok(())
    }

    fn on_manifest(
        &mut self,
        serial: u64,
        discovery: &Discovery,
        wanted: &[Image],
        is_kept: bool,
    ) -> anyhow::Result<()> {
        if serial != self.serial {
            self.serial = serial;
            let names: Vec<&str> = wanted.iter().map(|image| image.name.as_str()).collect();
            let text = match names[..] {
                [] => format!("manifest {serial} has nothing to seed"),
                _ => format!("manifest {serial}: {}", names.join(", ")),
            };
            let kept = if is_kept { ", as it was at the last run" } else { "" };
            let event =
                json!({"event": "manifest", "serial": serial, "images": names, "is_kept": is_kept});
            self.console.say(&format!("{text}{kept}"), &event);
        }
        if self.session.is_none() {
            self.session = Some(self.start(discovery)?);
        }
        for torrent in self.torrents.values_mut() {
            let is_wanted = wanted.iter().any(|image| image.infohash == torrent.image.infohash);
            torrent.retired = match torrent.retired {
                _ if is_wanted => None,
                since => since.or_else(|| Some(Instant::now())),
            };
        }
        let is_wanted = |infohash: &str| {
            let hashes = wanted.iter().map(|image| hex::encode(&image.infohash));
            hashes.chain(self.torrents.values().map(Torrent::infohash)).any(|hash| hash == infohash)
        };
        // Of the run before; what that says of its images may be what the lab still wants, or not.
        if !is_kept {
            self.shelf.sweep(is_wanted);
        }
        Ok(())
    }

    fn start(&self, discovery: &Discovery) -> anyhow::Result<Session> {
        let peers = self.args.peers.within(discovery);
        let sender = self.sender.clone();
        let session = peers.start(peers.choose_listen()?, move |key, event| {
            let _ = sender.send(Event::Session(key, event));
        })?;
        let addr = session.addr();
        let event = json!({"event": "listening", "addr": addr.to_string()});
        self.console.say(&format!("listening on {addr}"), &event);
        Ok(session)
    }

    fn on_ready(&mut self, image: Image, prepared: Prepared) {
        let Some(session) = &mut self.session else { return };
        // It was off offer for a moment, and has not been removed yet.
        if self.torrents.values().any(|torrent| torrent.image.infohash == image.infohash) {
            return;
        }
        let total = prepared.metainfo().geometry().data_len();
        let is_complete = prepared.have().is_full();
        let have = prepared.have_len();
        let key = session.add(prepared, self.args.peers.peers.clone());
        let (name, size) = (image.name.clone(), quantity::bytes(total));
        let text = match have {
            _ if is_complete => format!("seeding {name}, {size}"),
            0 => format!("getting {name}, {size}"),
            _ => format!("getting {name}, {} of {size} are here", quantity::bytes(have)),
        };
        let event = json!({
            "event": if is_complete { "seeding" } else { "getting" },
            "image": name,
            "infohash": hex::encode(&image.infohash),
            "bytes": have,
            "total": total,
        });
        self.console.say(&text, &event);
        let stats = Stats::default();
        let began = Instant::now();
        let torrent = Torrent { image, total, stats, began, is_complete, retired: None };
        self.torrents.insert(key, torrent);
    }

    fn on_session(&mut self, key: TorrentKey, event: SessionEvent) {
        match event {
            SessionEvent::Progress(stats) => {
                if let Some(torrent) = self.torrents.get_mut(&key) {
                    torrent.stats = stats;
                }
                self.console.transfer(&sum(self.torrents.values()));
            }
            SessionEvent::Completed => {
                if let Some(torrent) = self.torrents.get_mut(&key)
                    && !std::mem::replace(&mut torrent.is_complete, true)
                {
                    tell_complete(&self.console, torrent);
                }
            }
            SessionEvent::Failed(error) => {
                let Some(torrent) = self.torrents.remove(&key) else { return };
                let error = anyhow::Error::from(error)
                    .context(format!("cannot seed {}, which is tried again", torrent.image.name));
                self.console.warn(&format!("{error:#}"));
                let _ = self.lost.send(torrent.infohash());
            }
            event => warn(&self.console, &event),
        }
    }

    /// Ends versions that are no longer on offer and that nobody has been getting for a while, and
    /// removes their files.
    fn sweep(&mut self) {
        let mut over = vec![];
        for (&key, torrent) in &mut self.torrents {
            let Some(since) = &mut torrent.retired else { continue };
            // A download of what nobody offers any more may have peers, and never end.
            if torrent.stats.peers > 0 && torrent.is_complete {
                *since = Instant::now();
            } else if since.elapsed() >= FAREWELL || !torrent.is_complete {
                over.push(key);
            }
        }
        for key in over {
            let Some(torrent) = self.torrents.remove(&key) else { continue };
            if let Some(session) = &self.session {
                session.remove(key);
            }
            let infohash = torrent.infohash();
            self.shelf.sweep(|kept| kept != infohash);
            let name = &torrent.image.name;
            let event = json!({"event": "removed", "image": name, "infohash": infohash});
            self.console.say(&format!("the version before of {name} is removed"), &event);
        }
    }
}

fn tell_complete(console: &Console, torrent: &Torrent) {
    let (name, time) = (&torrent.image.name, torrent.began.elapsed());
    console.say(
        &format!(
            "complete {name}: {} verified in {}, and seeded from here on",
            quantity::bytes(torrent.total),
            quantity::duration(time),
        ),
        &json!({
            "event": "complete",
            "image": name,
            "infohash": torrent.infohash(),
            "seconds": time.as_secs_f64(),
            "bytes": torrent.total,
        }),
    );
}

/// All torrents together: a download as long as one of them is.
fn sum<'a>(torrents: impl Iterator<Item = &'a Torrent>) -> Transfer {
    let none = Transfer { seeds: true, ..Transfer::default() };
    let (mut sum, mut up, mut down) = (none, 0.0, 0.0);
    for torrent in torrents {
        let stats = &torrent.stats;
        sum.bytes += if torrent.is_complete { torrent.total } else { stats.verified };
        sum.total += torrent.total;
        sum.uploaded += stats.uploaded;
        sum.peers += stats.peers;
        sum.seeds &= torrent.is_complete;
        up += stats.upload_rate;
        down += stats.download_rate;
    }
    sum.rate = if sum.seeds { up } else { down };
    sum
}
