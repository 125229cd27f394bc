//! Ctrl+C: what a run has set up must be taken down, so the signal is remembered, not obeyed at once.
//!
//! Children are in the terminal's process group and get the signal too; whoever waits for something
//! asks [`check`] in between, and its error unwinds to where labs and processes are dropped.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

static SEEN: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_signal: libc::c_int) {
    SEEN.store(true, Ordering::Relaxed);
}

/// From now on SIGINT and SIGTERM are remembered.
pub(crate) fn remember_signals() {
    let handler: extern "C" fn(libc::c_int) = remember;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic, which a signal handler may.
        unsafe {
            libc::signal(signal, handler as libc::sighandler_t);
        }
    }
}

/// Fails once Ctrl+C was pressed.
pub(crate) fn check() -> Result<()> {
    ensure!(!SEEN.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
