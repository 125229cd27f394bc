//! What systemd is told (`sd_notify(3)`): a datagram to the socket that `NOTIFY_SOCKET` names.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

/// Says `state`, such as `READY=1`, if somebody wants to know. That nobody listens any more is no
/// reason to fail.
pub(crate) fn tell(state: &str) {
    if let Some(name) = env::var_os("NOTIFY_SOCKET") {
        let _ = send(&name, state);
    }
}

/// When systemd wants to hear that this program is alive, if it does (`sd_watchdog_enabled(3)`): twice
/// as often as it must.
#[derive(Debug)]
pub(crate) struct Watchdog {
    ticks: Option<Interval>,
    /// Who wants to hear.
    socket: Option<OsString>,
}

/// What the environment says of it.
pub(crate) fn watchdog() -> Watchdog {
    let text = |name| env::var(name).ok();
    let time = period(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref());
    Watchdog::new(env::var_os("NOTIFY_SOCKET"), time)
}

impl Watchdog {
    fn new(socket: Option<OsString>, time: Option<Duration>) -> Self {
        let ticks = time.map(|time| {
            let mut ticks = tokio::time::interval(time);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { ticks, socket }
    }

    /// Says that this program is alive.
    pub(crate) fn tell(&self) {
        if let Some(name) = &self.socket {
            let _ = send(name, "WATCHDOG=1");
        }
    }

    /// One that speaks that often to a name outside the file system, and what waits for a word there.
    #[cfg(test)]
    pub(crate) fn for_tests(
        name: &str,
        time: Duration,
    ) -> io::Result<(Self, impl Fn() -> String + use<>)> {
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        let heard = move || {
            let mut room = [0; 32];
            let len = listener.recv(&mut room).unwrap_or_default();
            String::from_utf8_lossy(&room[..len]).into_owned()
        };
        Ok((Self::new(Some(format!("@{name}").into()), Some(time)), heard))
    }

    /// Returns when it is time; never if nobody wants to hear.
    pub(crate) async fn due(&mut self) {
        match &mut self.ticks {
            Some(ticks) => drop(ticks.tick().await),
            None => std::future::pending().await,
        }
    }
}

fn period(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let is_for_us = pid.is_none_or(|pid| pid == std::process::id().to_string());
    let usec: u64 = usec?.parse().ok()?;
    (is_for_us && usec > 1).then(|| Duration::from_micros(usec / 2))
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let addr = match name.as_bytes() {
        // A name outside the file system.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &addr)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_hears_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut room = [0; 32];
        let len = listener.recv(&mut room).unwrap();
        assert_eq!(&room[..len], b"READY=1");
        assert!(send(dir.path().join("nobody").as_os_str(), "READY=1").is_err());
    }

    #[test]
    fn the_watchdog_hears_twice_as_often_as_it_must_if_it_asks_us() {
        let check = |usec, pid, expect: Option<u64>| {
            assert_eq!(period(usec, pid), expect.map(Duration::from_secs), "{usec:?} {pid:?}");
        };
        let (own, other) = (std::process::id().to_string(), "1".to_owned());
        check(Some("30000000"), Some(own.as_str()), Some(15));
        check(Some("30000000"), None, Some(15));
        check(Some("30000000"), Some(other.as_str()), None);
        check(Some("0"), None, None);
        check(None, None, None);
    }

    #[test]
    fn a_name_outside_the_file_system_is_reached() {
        let name = format!("boottorrent-test-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&addr).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        let mut room = [0; 32];
        let len = listener.recv(&mut room).unwrap();
        assert_eq!(&room[..len], b"STOPPING=1");
    }
}
