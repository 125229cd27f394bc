//! `boottorrent torrent`: torrents for people and scripts, whatever is in them.

mod create;
mod show;

mod verify;

mod get;
pub(crate) mod peers;
mod seed;

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use ::torrent::metainfo::{METAINFO_LEN_MAX, Metainfo};
use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use torrent_io::session::Notes;
use torrent_io::storage::{Layout, Storage};

use crate::cli::OutputFormat;
use crate::progress;

#[derive(Debug, Subcommand)]
pub(crate) enum TorrentCommand {
    /// Make a .torrent file of a file or folder.
    Create(create::CreateArgs),
    /// Show what a .torrent file says.
    Show(show::ShowArgs),
    /// Check files against a .torrent file, and name those that are missing or corrupt.
    Verify(verify::VerifyArgs),
    /// Send files to whoever asks, until Ctrl+C.
    Seed(seed::SeedArgs),
    /// Download what a .torrent file describes, or the rest of it.
    Get(get::GetArgs),
}

/// Does what was asked for.
pub(crate) fn run(command: &TorrentCommand) -> anyhow::Result<ExitCode> {
    let (result, format) = match command {
        TorrentCommand::Create(args) => (create::run(args), args.format()),
        TorrentCommand::Show(args) => (show::run(args), args.output),
        TorrentCommand::Verify(args) => (verify::run(args), args.output),
        TorrentCommand::Seed(args) => (seed::run(args), args.output),
        TorrentCommand::Get(args) => (get::run(args), args.output),
    };
    if let (Err(error), OutputFormat::Json) = (&result, format) {
        progress::print(&json!({"event": "error", "message": format!("{error:#}")}).to_string());
    }
    result
}

fn read_metainfo(path: &Path) -> anyhow::Result<Metainfo> {
    let cannot = || format!("cannot read {}", path.display());
    let mut bytes = vec![];
    // One more than fits shows that it is too long.
    let most = METAINFO_LEN_MAX as u64 + 1;
    File::open(path)
        .with_context(cannot)?
        .take(most)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    Metainfo::decode(&bytes)
        .with_context(|| format!("{} is not a .torrent file that can be used", path.display()))
}

/// As many threads as there are processors: for hashing.
pub(crate) fn hash_threads() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Notes of what was verified: in the user's folder for what can be done without.
fn notes() -> Option<Notes> {
    let folder = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Notes::in_dir(cache.join("boottorrent/verified"))
}

/// Notes that `dir` holds what the torrent says; `began` is before the first byte was read.
fn note_verified(metainfo: &Metainfo, dir: &Path, began: SystemTime) {
    if let Some(notes) = notes()
        && let Ok(layout) = Layout::try_from(metainfo)
        && let Ok(storage) = Storage::seed(dir, layout)
    {
        notes.keep(metainfo, &storage, began);
    }
}
