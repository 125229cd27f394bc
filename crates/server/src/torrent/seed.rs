//! `boottorrent torrent seed`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::SystemTime;

use ::torrent::metainfo::Metainfo;
use ::torrent::swarm::Stats;
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use torrent_io::session::{Place, Prepared, Session, SessionEvent, TorrentKey};
use torrent_io::storage::{Layout, Storage};

use super::peers::{Event, PeerArgs, Stop, interrupted, told, warn};
use super::{notes, read_metainfo};
use crate::cli::OutputFormat;
use crate::progress::{Console, Transfer};
use crate::quantity;

#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// The .torrent files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The folder that contains the torrent's file, or its folder, by the torrent's name.
    #[arg(long)]
    dir: PathBuf,
    /// Read and verify the files even if they are as they were when they were verified last.
    #[arg(long)]
    recheck: bool,
    #[command(flatten)]
    peers: PeerArgs,
    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: OutputFormat,
}

pub(super) fn run(args: &SeedArgs) -> anyhow::Result<ExitCode> {
    let (sender, events) = channel();
    let stop = Stop::watch(sender.clone())?;
    let mut console = Console::new(args.output);
    let metainfos =
        args.files.iter().map(|path| read_metainfo(path)).collect::<Result<Vec<_>, _>>()?;
    let listen = args.peers.choose_listen()?;
    // Nothing is served before all of it is verified.
    let mut prepared = vec![];
    for metainfo in metainfos {
        match prepare(args, metainfo, &stop, &mut console)? {
            Some(torrent) => prepared.push(torrent),
            None => return Ok(interrupted(&events)),
        }
    }
    let mut session = args.peers.start(listen, told(sender))?;
    let addr = session.addr();
    let mut seeding = BTreeMap::new();
    for torrent in prepared {
        let metainfo = torrent.metainfo();
        let (name, total) = (metainfo.name().to_owned(), metainfo.geometry().data_len());
        let text = format!("seeding {name}, {}", quantity::bytes(total));
        console.say(&text, &json!({"event": "seeding", "name": name, "total": total}));
        let key = session.add(torrent, args.peers.peers.clone());
        seeding.insert(key, (name, Stats::default()));
    }
    let text = format!("listening on {addr}");
    console.say(&text, &json!({"event": "listening", "addr": addr.to_string()}));
    Seed { console, events, seeding }.run(session)
}

/// Verifies the files of a torrent, unless they were and have not changed; `None` if a signal came
/// meanwhile.
fn prepare(
    args: &SeedArgs,
    metainfo: Metainfo,
    stop: &Stop,
    console: &mut Console,
) -> anyhow::Result<Option<Prepared>> {
    let notes = notes();
    if let (Some(notes), false) = (&notes, args.recheck) {
        let layout = Layout::try_from(&metainfo)
            .with_context(|| format!("torrent {:?} cannot be stored", metainfo.name()))?;
        let storage = Storage::seed(&args.dir, layout)?;
        if notes.know(&metainfo, &storage) {
            let name = metainfo.name();
            let text = format!("{name} is as it was when it was verified last");
            console.say(&text, &json!({"event": "unchanged", "name": name}));
            return Ok(Some(Prepared::hashed(metainfo, Arc::new(storage))));
        }
    }
    let began = SystemTime::now();
    let prepared = stop.prepare(metainfo, &Place::Seed(args.dir.clone()), console)?;
    if let (Some(notes), Some(prepared)) = (&notes, &prepared) {
        notes.keep(prepared.metainfo(), prepared.storage(), began);
    }
    Ok(prepared)
}

struct Seed {
    console: Console,
    events: Receiver<Event>,
    seeding: BTreeMap<TorrentKey, (String, Stats)>,
}

impl Seed {
    fn run(mut self, session: Session) -> anyhow::Result<ExitCode> {
        for event in &self.events {
            match event {
                // That is how it is meant to end.
                Event::Signal(_) => break,
                Event::Session(key, SessionEvent::Progress(stats)) => {
                    if let Some((_, last)) = self.seeding.get_mut(&key) {
                        *last = stats;
                    }
                    let transfer = sum(self.seeding.values().map(|(_, stats)| stats));
                    self.console.transfer(&transfer);
                }
                Event::Session(key, SessionEvent::Failed(error)) => {
                    let name = self.seeding.remove(&key).map_or(String::new(), |(name, _)| name);
                    let error = anyhow::Error::from(error).context(format!("cannot seed {name}"));
                    if self.seeding.is_empty() {
                        return Err(error);
                    }
                    self.console.warn(&format!("{error:#}"));
                }
                Event::Session(_, event) => warn(&self.console, &event),
                Event::Command(_) => {}
            }
        }
        self.console.finish();
        drop(session);
        Ok(ExitCode::SUCCESS)
    }
}

fn sum<'a>(stats: impl Iterator<Item = &'a Stats>) -> Transfer {
    stats.fold(Transfer { seeds: true, ..Transfer::default() }, |sum, stats| Transfer {
        bytes: sum.bytes + stats.verified,
        total: sum.total + stats.verified,
        rate: sum.rate + stats.upload_rate,
        uploaded: sum.uploaded + stats.uploaded,
        peers: sum.peers + stats.peers,
        seeds: true,
    })
}
