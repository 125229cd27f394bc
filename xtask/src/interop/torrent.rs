//! Torrents, made by each program that makes them.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::content::Shape;
use super::tracker::Tracker;
use crate::lab::{Lab, Slot};
use crate::{release_binary, setup};

/// Makes one with libtorrent.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/libtorrent_create.py");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V1,
    Hybrid,
    V2,
}

impl Format {
    /// As our `--format` has it.
    const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Ours,
    Mktorrent,
    Transmission,
    Libtorrent,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Torrent {
    pub(super) shape: Shape,
    pub(super) format: Format,
    pub(super) piece_len: u32,
    pub(super) maker: Maker,
}

impl Torrent {
    pub(super) fn name(&self) -> String {
        let maker = match self.maker {
            Maker::Ours => "",
            Maker::Mktorrent => " by mktorrent",
            Maker::Transmission => " by transmission-create",
            Maker::Libtorrent => " by libtorrent",
        };
        let (format, shape) = (self.format.name(), self.shape.name());
        format!("{format} {shape} of {} KiB pieces{maker}", self.piece_len / 1024)
    }

    /// Makes it of what is in the server's directory; where it is then.
    pub(super) fn make(
        &self,
        lab: &Lab,
        tracker: Option<Tracker>,
        web_seed: Option<String>,
    ) -> Result<PathBuf> {
        let dir = lab.slot_dir(Slot::SERVER);
        let (source, out) = (dir.join(self.shape.name()), dir.join("it.torrent"));
        let (source_text, out_text) = (source.to_string_lossy(), out.to_string_lossy());
        let announce = tracker.map(Tracker::announce);
        let mut argv: Vec<String> = match self.maker {
            Maker::Ours => vec![
                release_binary()?.to_string_lossy().into_owned(),
                "torrent".into(),
                "create".into(),
                "--format".into(),
                self.format.name().into(),
                "--piece-length".into(),
                self.piece_len.to_string(),
            ],
            // It wants the exponent.
            Maker::Mktorrent => {
                vec!["mktorrent".into(), "-l".into(), self.piece_len.ilog2().to_string()]
            }
            // It wants KiB.
            Maker::Transmission => {
                vec!["transmission-create".into(), "-s".into(), (self.piece_len / 1024).to_string()]
            }
            Maker::Libtorrent => vec![
                setup::PYTHON.file.into(),
                SCRIPT.into(),
                self.format.name().into(),
                self.piece_len.to_string(),
            ],
        };
        if let Some(announce) = announce {
            let flag = match self.maker {
                Maker::Mktorrent => "-a",
                Maker::Transmission => "-t",
                Maker::Ours | Maker::Libtorrent => "--announce",
            };
            argv.extend([flag.into(), announce]);
        }
        if let Some(url) = web_seed {
            ensure!(self.maker == Maker::Ours, "only our torrents have web seeds here");
            argv.extend(["--web-seed".into(), url]);
        }
        argv.extend(["-o".into(), out_text.into_owned(), source_text.into_owned()]);
        lab.run(Slot::SERVER, &argv)?;
        Ok(out)
    }
}
