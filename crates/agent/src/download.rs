//! An image out of the swarm into memory, and the one type that says that all of it is verified.
//!
//! The bytes lie in a folder of a tmpfs, named after the infohash: what an attempt has brought is
//! there for the next one, programs of the image can be run from there, and the kernel takes its
//! files from there. Peers come first; web seeds, the server among them, are asked by the engine
//! itself as soon as no peer has anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use boot::manifest::Discovery;
use boot::report::{SOURCES_MAX, Source};
use boot::stage::Progress;
use boot::{Failure, Image, ImageName, ImagePath, Stage};
use torrent::metainfo::Metainfo;
use torrent::swarm::Stats;
use torrent::wire;
use torrent_io::engine::{EngineConfig, EngineError, Known, WebSeedTrouble};
use torrent_io::session::{Place, Prepared, Session, SessionConfig, SessionError, SessionEvent};
use torrent_io::storage::{Allocation, FileHandle, Storage, StorageError};

use crate::console::{duration, mib};
use crate::enough::{Look, is_enough};
use crate::events::{Event, Key};
use crate::failed::{Fails, chain};
use crate::node::Node;
use crate::screen::download as page;
use crate::shell;
use crate::torrent as torrents;
use crate::watch::{SILENCE_MAX, Verdict, Watch};

/// The port that BitTorrent clients are expected at (BEP 3).
const PORT: u16 = 6881;

/// How often the person and the server are told.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// How many of these pass between two words on who gives: it is for people who watch, and a thousand nodes
/// say it.
const TELLS_PER_SOURCES: u32 = 5;

/// An image of which every byte has been verified by the infohash in the lab's manifest. Only a
/// download that is complete makes one, and loaders take nothing else.
#[derive(Debug)]
pub(crate) struct VerifiedImage {
    image: Image,
    metainfo: Metainfo,
    storage: Arc<Storage>,
    folder: PathBuf,
    /// What the torrent's paths are relative to.
    dir: PathBuf,
}

impl VerifiedImage {
    /// What it is.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// The folder that its paths are relative to.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder that its torrent's paths are relative to.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The torrent and where its bytes are, for who goes on seeding.
    pub(crate) fn seed(&self) -> (Metainfo, Arc<Storage>) {
        (self.metainfo.clone(), Arc::clone(&self.storage))
    }

    /// One of its files, open, and its length in bytes. None if it has no such file.
    ///
    /// # Errors
    /// If the file is not the one that was verified any more.
    pub(crate) fn file(&self, path: &ImagePath) -> Result<Option<(FileHandle, u64)>, StorageError> {
        match torrents::file(&self.metainfo, path) {
            Some((index, len)) => Ok(Some((self.storage.file(index)?, len))),
            None => Ok(None),
        }
    }
}

/// Why an image did not come.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadFailure {
    /// Nothing comes.
    #[error("nothing has come for {} s; {verified} of {total} are there; {peers} connected{heard}", SILENCE_MAX.as_secs())]
    Silent {
        /// Verified so far.
        verified: String,
        /// Of these.
        total: String,
        /// How many peers.
        peers: String,
        /// What trackers and web seeds said last.
        heard: String,
    },
    /// Somebody sends other bytes, and nobody the right ones.
    #[error(
        "what comes is not the image, and is thrown away; {verified} of {total} are good{heard}"
    )]
    Corrupt {
        /// Verified so far.
        verified: String,
        /// Of these.
        total: String,
        /// Who sent it.
        heard: String,
    },
    /// There is no room, or something is wrong with it.
    #[error("cannot store the image")]
    Storage(#[from] StorageError),
    /// The torrent cannot be stored as it is.
    #[error("cannot store the image")]
    Session(#[from] SessionError),
    /// There is no swarm engine.
    #[error("cannot take part in the swarm")]
    Engine(#[from] EngineError),
    /// The folder cannot be made.
    #[error("{}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Fails for DownloadFailure {
    fn failure(&self) -> Failure {
        match self {
            Self::Silent { .. } => Failure::DownloadStalled,
            Self::Corrupt { .. } => Failure::ImageAltered,
            Self::Session(SessionError::Layout { .. }) => Failure::TorrentAltered,
            Self::Storage(error) | Self::Session(SessionError::Storage(error)) => match error {
                StorageError::NoSpace { .. }
                | StorageError::NoMemory { .. }
                | StorageError::Full(_) => Failure::NotEnoughMemory,
                _ => Failure::Internal,
            },
            Self::Session(_) | Self::Engine(_) | Self::Folder { .. } => Failure::Internal,
        }
    }
}

/// The folder for images, and in it one for each infohash.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder of `image`, made if need be. Those of others, but for the `needed`, are removed: they
    /// only take memory.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(crate) fn make(
        root: &Path,
        image: &Image,
        needed: Option<&Image>,
    ) -> Result<Self, DownloadFailure> {
        let images = root.join("run/boottorrent/images");
        let id = boot::hex::encode(&image.infohash);
        let path = images.join(&id);
        let failed = |source| DownloadFailure::Folder { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        let other = needed.map(|image| boot::hex::encode(&image.infohash));
        for entry in std::fs::read_dir(&images).map_err(failed)?.flatten() {
            let is_other = other.as_ref().is_some_and(|other| entry.file_name() == **other);
            if entry.file_name() != *id && !is_other {
                // What cannot be removed is in nobody's way but for its memory.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self(path))
    }

    /// Bytes of memory that its files take already.
    pub(crate) fn stored_len(&self) -> u64 {
        fn walk(path: &Path) -> u64 {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
                .map(
                    |(path, metadata)| {
                        if metadata.is_dir() { walk(&path) } else { metadata.blocks() * 512 }
                    },
                )
                .sum()
        }
        walk(&self.0)
    }
}

/// A download, and afterwards a seed.
pub(crate) struct Download {
    image: Image,
    metainfo: Metainfo,
    folder: PathBuf,
    dir: PathBuf,
    storage: Arc<Storage>,
    /// Of the events of this download; those of others before it are passed over.
    number: u32,
    total: u64,
    stats: Stats,
    heard: String,
    sources: Vec<(IpAddr, u64)>,
    /// The person knows that no peer answers.
    http_said: bool,
    /// This node is a peer for as long as this is there.
    _session: Session,
}

impl Download {
    /// Looks at what is there, and joins the swarm.
    ///
    /// # Errors
    /// [`DownloadFailure`].
    pub(crate) fn start(
        node: &Node,
        folder: &Folder,
        image: &Image,
        metainfo: Metainfo,
        discovery: &Discovery,
    ) -> Result<Self, DownloadFailure> {
        let number = node.number(1);
        let place = Place::Download(folder.0.clone(), Allocation::Sparse);
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let console = node.console.clone();
        let mut shown = 0;
        let mut checking = |progress: torrent_io::check::Progress| {
            let tenths = u64::from(progress.checked) * 10 / u64::from(progress.piece_count.max(1));
            // A serial line takes its time.
            if tenths > shown {
                shown = tenths;
                console.progress(&format!("checking what is there: {tenths}0 %"));
            }
        };
        let never = AtomicBool::new(false);
        let mut prepared = Prepared::open(metainfo, &place, threads, &never, &mut checking)?;
        if let Some(server) = &node.options.server {
            let infohash = boot::hex::encode(&image.infohash);
            prepared.add_web_seed(server.join(&boot::image::version_path(&infohash)));
        }
        let metainfo = prepared.metainfo().clone();
        let total = metainfo.geometry().data_len();
        let dir = folder.0.clone();
        let folder = match metainfo.layout().files() {
            [file] if file.path().components().len() == 1 => dir.clone(),
            _ => dir.join(metainfo.name()),
        };
        let storage = prepared.storage().clone();
        let mut session = session(&node.inbox.sender(), discovery, None, number)?;
        session.add(prepared, vec![]);
        let (image, stats, heard) = (image.clone(), Stats::default(), String::new());
        let sources = vec![];
        let http_said = false;
        let _session = session;
        Ok(Self {
            image,
            metainfo,
            folder,
            dir,
            storage,
            number,
            total,
            stats,
            heard,
            sources,
            http_said,
            _session,
        })
    }

    /// Waits until every byte is verified. If somebody `is_there` the page of the download is shown,
    /// which can be left: then there is no image.
    ///
    /// # Errors
    /// [`DownloadFailure`]; what is verified by then stays for the next attempt.
    pub(crate) fn finish(
        &mut self,
        node: &mut Node,
        is_there: bool,
    ) -> Result<Option<VerifiedImage>, DownloadFailure> {
        let finished = self.wait(node, is_there);
        node.console.end_page();
        if !finished? {
            return Ok(None);
        }
        Ok(Some(VerifiedImage {
            image: self.image.clone(),
            metainfo: self.metainfo.clone(),
            storage: self.storage.clone(),
            folder: self.folder.clone(),
            dir: self.dir.clone(),
        }))
    }

    /// Whether every byte is verified in the end.
    fn wait(&mut self, node: &mut Node, is_there: bool) -> Result<bool, DownloadFailure> {
        let len = self.total.to_string();
        let facts = [("image", self.image.name.as_str()), ("len", &len)];
        node.enter(self.stage(), &facts);
        let started = Instant::now();
        let mut watch = Watch::new(Duration::ZERO);
        let mut tell_at = Instant::now() + TELL_INTERVAL;
        let mut tells: u32 = 0;
        loop {
            match node.next(tell_at) {
                Some(Event::Session(number, event)) if number == self.number => {
                    if self.take(node, event, &mut watch, started)? {
                        break;
                    }
                }
                Some(Event::Key(Key::Escape)) if is_there => return Ok(false),
                Some(Event::Key(Key::Char('s') | Key::Control('s'))) => shell::run(node),
                Some(_) | None => {}
            }
            if tell_at <= Instant::now() {
                tell_at = Instant::now() + TELL_INTERVAL;
                self.show(node, is_there);
                tells += 1;
                if tells.is_multiple_of(TELLS_PER_SOURCES) {
                    self.tell_sources(node);
                }
                node.report(self.stage());
            }
            if let Some(verdict) = watch.verdict(started.elapsed()) {
                return Err(self.given_up(verdict));
            }
        }
        let seconds = format!("{:.1}", started.elapsed().as_secs_f64());
        let name = self.image.name.clone();
        let facts = [("image", name.as_str()), ("len", len.as_str()), ("seconds", &seconds)];
        node.console.end_page();
        self.tell_sources(node);
        node.enter(Stage::Verified { image: name.clone() }, &facts);
        Ok(true)
    }

    fn tell_sources(&self, node: &Node) {
        let most = self.sources.iter().take(SOURCES_MAX);
        let sources = most.map(|&(address, bytes)| Source { address, bytes });
        node.reporter().came_from(sources.collect());
    }

    fn show(&self, node: &Node, is_there: bool) {
        if !is_there {
            return node.console.progress(&self.line());
        }
        let Stats { verified, download_rate, uploaded, upload_rate, .. } = self.stats;
        let progress = page::Progress {
            node: &node.name(),
            title: &self.image.title,
            verified,
            total: self.total,
            rate: download_rate as u64,
            from: &self.from(),
            uploaded,
            upload_rate: upload_rate as u64,
            heard: &self.heard,
        };
        node.console.draw(&self.line(), |buffer| page::draw(&progress, buffer));
    }

    /// Goes on seeding, until `time` has passed, the person at the node presses Enter or, if it is to be
    /// judged (`auto`), the swarm has enough copies.
    pub(crate) fn seed(&mut self, node: &mut Node, time: Duration, auto: bool) {
        let started = Instant::now();
        let end = started + time;
        let mut said: Option<(u32, Instant)> = None;
        let mut watch = Watch::default();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let look = Look {
                elapsed: started.elapsed(),
                said: said.map(|(count, at)| (count, at.elapsed())),
                upload_rate: self.stats.upload_rate as u64,
            };
            if auto && is_enough(look) {
                break;
            }
            node.console.progress(&self.seeding_line(left));
            let tick = Instant::now() + left.min(TELL_INTERVAL);
            match node.next(tick) {
                Some(Event::Session(number, event)) if number == self.number => {
                    // It has all that it needs: a seed that fails is no reason not to boot.
                    let _ = self.take(node, event, &mut watch, Instant::now());
                }
                Some(Event::Answer(answer)) => {
                    said = answer.downloading.map(|count| (count, Instant::now())).or(said);
                }
                Some(Event::Key(Key::Enter)) => break,
                Some(Event::Key(Key::Char('s') | Key::Control('s'))) => shell::run(node),
                Some(_) | None => {}
            }
        }
        node.console.end_progress();
    }

    /// Bytes that others have had from this node.
    pub(crate) fn uploaded(&self) -> u64 {
        self.stats.uploaded
    }

    /// Takes in what the session says; true if all is verified.
    fn take(
        &mut self,
        node: &Node,
        event: SessionEvent,
        watch: &mut Watch,
        started: Instant,
    ) -> Result<bool, DownloadFailure> {
        match event {
            SessionEvent::Completed => return Ok(true),
            SessionEvent::Failed(error) => return Err(error.into()),
            SessionEvent::Progress(stats) => {
                self.stats = stats;
                if self.by_http() && !self.http_said {
                    self.http_said = true;
                    node.console.say("  No peer has anything for this node: it comes over http.");
                }
                watch.figures(started.elapsed(), stats.verified, stats.downloaded);
            }
            SessionEvent::Banned(peer) => {
                watch.corrupt();
                self.hear(node, format!("peer {peer} sent other bytes than the image's"));
            }
            SessionEvent::WebSeed { url, trouble } => {
                if matches!(trouble, WebSeedTrouble::Corrupt) {
                    watch.corrupt();
                }
                self.hear(node, format!("{url}: {}", chain(&trouble)));
            }
            SessionEvent::TrackerFailed(error) => self.hear(node, chain(&error)),
            SessionEvent::TrackerWarning { url, text } => {
                self.hear(node, format!("tracker {url} warns: {text}"));
            }
            SessionEvent::LsdFailed(error) => {
                self.hear(node, format!("no peers by multicast: {}", chain(&error)));
            }
            SessionEvent::Sources(sources) => self.sources = sources,
            SessionEvent::NotSaved(error) => tracing::info!(error = %chain(&error), "not saved"),
        }
        Ok(false)
    }

    fn hear(&mut self, node: &Node, text: String) {
        // A tracker that is down says the same each time.
        if self.heard != text {
            node.console.say(&format!("  {text}"));
            self.heard = text;
        }
    }

    fn given_up(&self, verdict: Verdict) -> DownloadFailure {
        let (verified, total) = (mib(self.stats.verified), mib(self.total));
        let heard = if self.heard.is_empty() { String::new() } else { format!("; {}", self.heard) };
        match verdict {
            Verdict::Silent => {
                let peers = count(self.stats.peers);
                DownloadFailure::Silent { verified, total, peers, heard }
            }
            Verdict::Corrupt => DownloadFailure::Corrupt { verified, total, heard },
        }
    }

    /// The bytes come by HTTP, as no peer answers. The rate outlasts the last byte by some seconds,
    /// in which a peer may leave.
    fn by_http(&self) -> bool {
        let Stats { peers, download_rate, verified, .. } = self.stats;
        peers == 0 && download_rate > 0.0 && verified < self.total
    }

    fn stage(&self) -> Stage {
        let Stats { verified, download_rate, peers, uploaded, .. } = self.stats;
        Stage::Downloading(Progress {
            image: self.image.name.clone(),
            verified_bytes: verified,
            total_bytes: self.total,
            rate_bytes_per_s: download_rate as u64,
            peers: u32::try_from(peers).unwrap_or(u32::MAX),
            uploaded_bytes: uploaded,
            http: self.by_http(),
        })
    }

    fn line(&self) -> String {
        let Stats { verified, download_rate, .. } = self.stats;
        progress_line(&self.image.name, verified, self.total, download_rate as u64, &self.from())
    }

    /// Who sends the image.
    fn from(&self) -> String {
        if self.by_http() { "by HTTP".to_owned() } else { count(self.stats.peers) }
    }

    fn seeding_line(&self, left: Duration) -> String {
        let rate = mib(self.stats.upload_rate as u64);
        let (sent, peers) = (mib(self.stats.uploaded), count(self.stats.peers));
        let left = duration(left.as_secs_f64().ceil() as u64);
        format!("seeding for {left} more, {rate}/s, {peers}, {sent} sent; Enter: boot now")
    }
}

fn count(peers: usize) -> String {
    if peers == 1 { "1 peer".to_owned() } else { format!("{peers} peers") }
}

fn progress_line(name: &ImageName, verified: u64, total: u64, rate: u64, from: &str) -> String {
    let percent = (u128::from(verified) * 100).checked_div(total.into()).unwrap_or(100);
    let eta = match (total.saturating_sub(verified)).checked_div(rate) {
        Some(seconds) => format!("{} left", duration(seconds)),
        None => "waiting".to_owned(),
    };
    format!("{name}: {percent} % of {}, {}/s, {from}, {eta}", mib(total), mib(rate),)
}

/// A peer. Events of its first torrent are told with `number`, those of others with the numbers after.
///
/// # Errors
/// If there is none to be had.
pub(crate) fn session(
    events: &Sender<Event>,
    discovery: &Discovery,
    upload_limit: Option<u64>,
    number: u32,
) -> Result<Session, EngineError> {
    let random_seed = fastrand::u64(..);
    let start = |listen: SocketAddr| {
        let config = SessionConfig {
            engine: EngineConfig {
                listen,
                peer_id: wire::peer_id(random_seed),
                random_seed,
                upload_limit,
                download_limit: None,
                pex: discovery.pex,
                known: Known::default(),
            },
            lsd: discovery.lsd,
            user_agent: concat!("BootTorrent/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let events = events.clone();
        Session::start(config, move |torrent, event| {
            // Who does not listen any more has booted.
            let _ = events.send(Event::Session(number + torrent.0, event));
        })
    };
    // A kernel without IPv6, or somebody else at the port.
    start((Ipv6Addr::UNSPECIFIED, PORT).into())
        .or_else(|_| start((Ipv4Addr::UNSPECIFIED, PORT).into()))
        .or_else(|_| start((Ipv4Addr::UNSPECIFIED, 0).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_a_person_wants_to_know() {
        let line = |verified, rate| {
            progress_line(&"debian".parse().unwrap(), verified, 300 << 20, rate, "4 peers")
        };
        let expect = "debian: 50 % of 300 MiB, 10 MiB/s, 4 peers, 15 s left";
        assert_eq!(line(150 << 20, 10 << 20), expect);
        assert!(line(0, 0).ends_with("0.0 MiB/s, 4 peers, waiting"), "{}", line(0, 0));
    }

    #[test]
    fn only_the_image_that_is_wanted_takes_memory() {
        let root = tempfile::tempdir().unwrap();
        let image = |number| Image {
            name: "debian".parse().unwrap(),
            title: String::new(),
            description: String::new(),
            password: None,
            len: 1,
            infohash: [number; 32],
            loader: boot::Loader::Unknown,
        };
        let first = Folder::make(root.path(), &image(1), None).unwrap();
        std::fs::write(first.0.join("a"), vec![1; 100_000]).unwrap();
        assert!(first.stored_len() >= 100_000);
        let again = Folder::make(root.path(), &image(1), None).unwrap();
        assert_eq!(again.stored_len(), first.stored_len());
        let beside = Folder::make(root.path(), &image(2), Some(&image(1))).unwrap();
        assert_eq!((beside.stored_len(), first.0.exists()), (0, true));
        let second = Folder::make(root.path(), &image(2), None).unwrap();
        assert_eq!((second.stored_len(), first.0.exists()), (0, false));
    }
}
