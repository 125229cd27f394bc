//! A bare peer for measuring the engine by itself: no tracker, no resume, no display.
//!
//! `peer seed|get TORRENT DIR LISTEN [PEER…]`; `get` ends once complete with `complete SECONDS`, or
//! stays if the environment has `STAY`.
#![expect(clippy::print_stdout, reason = "it is a program")]

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use torrent::Bitfield;
use torrent::metainfo::Metainfo;
use torrent::swarm::Role;
use torrent_io::engine::{Engine, EngineConfig, Known, TorrentConfig, TorrentEvent};
use torrent_io::storage::{Allocation, FileSpan, Layout, Storage};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let metainfo = Metainfo::decode(&std::fs::read(&args[2])?)?;
    let spans = metainfo
        .layout()
        .files()
        .iter()
        .map(|file| FileSpan {
            path: file.path().components().iter().collect::<PathBuf>(),
            start: file.start(),
            len: file.len(),
            padding: false,
        })
        .collect();
    let layout = Layout::new(metainfo.geometry().piece_len(), spans)?;
    let dir = PathBuf::from(&args[3]);
    let seed = args[1] == "seed";
    let count = metainfo.geometry().piece_count();
    let id = metainfo.info_hashes().next().map(|hash| hash.truncated()).unwrap_or_default();
    let storage = if seed {
        Storage::seed(&dir, layout)?
    } else {
        std::fs::create_dir_all(&dir)?;
        Storage::download(&dir, layout, metainfo.name(), &id, Allocation::Sparse)?.0
    };
    let (events, heard) = mpsc::channel();
    let random = std::process::id().into();
    let mut engine = Engine::start(EngineConfig {
        listen: args[4].parse()?,
        peer_id: torrent::wire::peer_id(random),
        random_seed: random,
        upload_limit: None,
        download_limit: None,
        pex: false,
        known: Known::default(),
    })?;
    let started = Instant::now();
    let torrent = engine.add(TorrentConfig {
        metainfo,
        storage: Arc::new(storage),
        have: if seed { Bitfield::full(count) } else { Bitfield::new(count) },
        role: if seed { Role::Seed } else { Role::Leech },
        web_seeds: vec![],
        events: Box::new(move |event| drop(events.send(event))),
    });
    let peers = args[5..].iter().map(|peer| peer.parse()).collect::<Result<Vec<_>, _>>()?;
    engine.add_peers(torrent, peers);
    for event in heard {
        match event {
            TorrentEvent::Completed if !seed => {
                println!("complete {:.3}", started.elapsed().as_secs_f64());
                if std::env::var_os("STAY").is_none() {
                    return Ok(());
                }
            }
            TorrentEvent::Failed(error) => return Err(error.into()),
            TorrentEvent::Banned(addr) => println!("banned {addr}"),
            TorrentEvent::Progress(progress) if std::env::var_os("VERBOSE").is_some() => {
                println!("{} {:?}", args[1], progress.stats);
            }
            _ => {}
        }
    }
    Ok(())
}
