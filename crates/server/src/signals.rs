//! Ctrl+C and SIGTERM, for commands that do not run on tokio.

use std::process::ExitCode;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Who wants us to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl+C.
    Interrupt,
    /// `kill`, systemd.
    Terminate,
}

impl Signal {
    /// The exit status of a command that was ended before its work was done: 128 and the number of
    /// the signal, as shells say it.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(self.status())
    }

    /// As [`Self::exit_code`] for a thread that ends the program.
    pub(crate) const fn status(self) -> u8 {
        match self {
            Self::Interrupt => 128 + 2,
            Self::Terminate => 128 + 15,
        }
    }
}

/// Calls `on` at the first signal, on another thread; the second one ends the program at once, for
/// who cannot wait for an orderly end.
pub(crate) fn watch(on: impl FnOnce(Signal) + Send + 'static) -> anyhow::Result<()> {
    let failed = "cannot wait for signals";
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context(failed)?;
    // From here on signals are caught, whenever the thread begins to run.
    let (mut interrupt, mut terminate) = {
        let _runtime = runtime.enter();
        (
            signal(SignalKind::interrupt()).context(failed)?,
            signal(SignalKind::terminate()).context(failed)?,
        )
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let mut next = async || {
                    tokio::select! {
                        _ = interrupt.recv() => Signal::Interrupt,
                        _ = terminate.recv() => Signal::Terminate,
                    }
                };
                on(next().await);
                std::process::exit(i32::from(next().await.status()));
            });
        })
        .context(failed)?;
    Ok(())
}
