//! A window into a lab: a port of this machine's own network at which a server inside answers, for a
//! browser that somebody has open here.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Lab, Slot};

/// In a lab everything is near; a machine that is emulated answers late.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections that wait to be made: a browser opens six to a server.
const WAITING_MAX: usize = 16;

impl Lab {
    /// Opens `http://localhost:PORT/` to a port of a slot, until this program ends; PORT. It is
    /// `wanted` unless somebody has that.
    pub(crate) fn open_window(&self, slot: Slot, inside: u16, wanted: u16) -> Result<u16> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .context("no port for a window")?;
        let port = listener.local_addr()?.port();
        let namespace = self.open_namespace(slot)?;
        let address = SocketAddr::from((slot.address(), inside));
        let (to, from) = sync_channel(WAITING_MAX);
        thread::spawn(move || connect_all(&namespace, address, &from));
        thread::spawn(move || accept_all(&listener, &to));
        Ok(port)
    }

    /// A connection from a slot to an address of its network, made in the calling program.
    pub(crate) fn connect(&self, slot: Slot, address: SocketAddr) -> Result<TcpStream> {
        let namespace = self.open_namespace(slot)?;
        let connect = move || {
            enter(&namespace).context("entering a slot")?;
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
                .with_context(|| format!("connecting to {address}"))
        };
        thread::spawn(connect).join().expect("it does not panic")
    }

    fn open_namespace(&self, slot: Slot) -> Result<File> {
        let path = format!("/run/netns/{}", self.namespace(slot));
        File::open(&path).with_context(|| format!("opening {path}"))
    }
}

fn accept_all(listener: &TcpListener, to: &SyncSender<TcpStream>) {
    for outside in listener.incoming().flatten() {
        if to.send(outside).is_err() {
            return;
        }
    }
}

/// A thread's sockets are of the namespace that it is in when it makes them, so this one is in no other.
fn connect_all(namespace: &File, address: SocketAddr, from: &Receiver<TcpStream>) {
    if let Err(error) = enter(namespace) {
        eprintln!("no window into the lab: {error}");
        return;
    }
    for outside in from {
        // A browser whose connection is closed says itself that nobody answers.
        if let Ok(inside) = TcpStream::connect(address) {
            let _ = join(&outside, &inside);
        }
    }
}

/// Moves the calling thread into a network namespace.
fn enter(namespace: &File) -> io::Result<()> {
    // SAFETY: setns has no memory effects; it moves this thread alone.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Passes on what comes from either side until both have ended.
fn join(outside: &TcpStream, inside: &TcpStream) -> io::Result<()> {
    for (from, to) in [(outside, inside), (inside, outside)] {
        let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}
