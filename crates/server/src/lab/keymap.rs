//! The layout of nodes' keyboards, out of the layouts that are installed on this machine.

use std::io;
use std::process::{Command, Stdio};

use boot::keymap::{Keymap, KeymapError};

/// Why there is no layout.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKeymap {
    #[error("console.keyboard needs loadkeys: install it with `apt install kbd console-data`")]
    Missing(#[source] io::Error),
    #[error(
        "console.keyboard: loadkeys knows no layout `{layout}` ({said}); those of console-data are below \
         /usr/share/keymaps"
    )]
    Unknown { layout: String, said: String },
    #[error("console.keyboard: loadkeys made something else of `{layout}` than a keymap")]
    Malformed { layout: String, source: KeymapError },
}

/// The layout of this name, such as `de-latin1`.
pub(crate) fn find(layout: &str) -> Result<Keymap, NoKeymap> {
    let out = Command::new("loadkeys")
        .args(["--quiet", "--bkeymap", layout])
        .stdin(Stdio::null())
        .output()
        .map_err(NoKeymap::Missing)?;
    if !out.status.success() || out.stdout.is_empty() {
        let said = String::from_utf8_lossy(&out.stderr).trim().replace('\n', "; ");
        return Err(NoKeymap::Unknown { layout: layout.to_owned(), said });
    }
    let layout = layout.to_owned();
    Keymap::new(out.stdout).map_err(|source| NoKeymap::Malformed { layout, source })
}
