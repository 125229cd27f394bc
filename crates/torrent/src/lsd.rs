//! Local service discovery (BEP 14): peers of one network find one another by multicast.
//!
//! Datagrams and when to send them; the sockets, their groups and interfaces are for the driver.
//! Private torrents (BEP 27) are never announced and never looked for.
//!
//! ```text
//! BT-SEARCH * HTTP/1.1
//! Host: 239.192.152.143:6771
//! Port: 6881
//! Infohash: 0123456789abcdef0123456789abcdef01234567
//! cookie: 00c0ffee00c0ffee
//! ```

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::time::Time;
use crate::wire::compact;

/// Between two announces of one torrent (BEP 14).
pub const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Between any two announces (BEP 14: "no more than 1 announce per minute").
pub const INTERVAL_MIN: Duration = Duration::from_secs(60);

/// The most by which an announce is put off, so that a fleet that was switched on together does not
/// shout together for ever after.
pub const JITTER_MAX: Duration = Duration::from_secs(30);

/// The most bytes of a datagram, sent or read (BEP 14: less than 1400, so that it is not split).
pub const DATAGRAM_LEN_MAX: usize = 1400;

/// The most infohashes in a datagram: 25 lines of 52 bytes leave 100 for the others, of which ours
/// take 95.
pub const INFOHASHES_MAX: usize = 25;

/// The most bytes of a cookie that is read. Ours has 16, libtorrent's 8.
pub const COOKIE_LEN_MAX: usize = 64;

/// The most torrents announced: at one datagram a minute, more could not have their turn in
/// [`INTERVAL`]. Those beyond are found by trackers alone.
pub const TORRENTS_MAX: usize = 5 * INFOHASHES_MAX;

const REQUEST_LINE: &[u8] = b"BT-SEARCH * HTTP/1.1";

/// A multicast group of BEP 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `239.192.152.143:6771`, organisation-local.
    V4,
    /// `[ff15::efc0:988f]:6771`, site-local.
    V6,
}

impl Group {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Where to send, and which group to join at which port.
    #[must_use]
    pub const fn addr(self) -> SocketAddr {
        let ip = match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(239, 192, 152, 143)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0xefc0, 0x988f)),
        };
        SocketAddr::new(ip, 6771)
    }
}

/// A datagram: the sender is at `port` in these swarms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce<'a> {
    /// Where the sender takes peer connections.
    pub port: u16,
    /// At least one and at most [`INFOHASHES_MAX`].
    pub infohashes: Vec<[u8; 20]>,
    /// Opaque; senders know their own datagrams by it. At most [`COOKIE_LEN_MAX`] bytes, all of
    /// them visible ASCII.
    pub cookie: Option<&'a [u8]>,
}

/// A datagram that is no announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More than [`DATAGRAM_LEN_MAX`] bytes.
    #[error("announce of {0} bytes is too long")]
    TooLong(usize),
    /// It does not begin with `BT-SEARCH`: other services use multicast, too.
    #[error("not a BT-SEARCH")]
    NotSearch,
    /// No port from 1 to 65535.
    #[error("announce has no port")]
    Port,
    /// No infohash of 40 hexadecimal digits.
    #[error("announce has no infohash")]
    Infohash,
    /// A cookie that is too long or not visible ASCII.
    #[error("announce has a bad cookie")]
    Cookie,
}

impl<'a> Announce<'a> {
    /// Reads a datagram. Names of headers are taken in any case, and unknown headers skipped (RFC
    /// 2616 §4.2); so are infohashes of another form, and those beyond [`INFOHASHES_MAX`].
    ///
    /// # Errors
    /// If it is no announce that we could use.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        if datagram.len() > DATAGRAM_LEN_MAX {
            return Err(DecodeError::TooLong(datagram.len()));
        }
        let mut lines = datagram.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        if lines.next() != Some(REQUEST_LINE) {
            return Err(DecodeError::NotSearch);
        }
        let (mut port, mut infohashes, mut cookie) = (None, vec![], None);
        for line in lines {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                continue;
            };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"Port") {
                port = Some(decode_port(value).ok_or(DecodeError::Port)?);
            } else if name.eq_ignore_ascii_case(b"cookie") {
                let fits = value.len() <= COOKIE_LEN_MAX;
                let visible = value.iter().all(u8::is_ascii_graphic);
                cookie = Some((fits && visible).then_some(value).ok_or(DecodeError::Cookie)?);
            } else if name.eq_ignore_ascii_case(b"Infohash")
                && let Some(infohash) = decode_hex(value)
                && infohashes.len() < INFOHASHES_MAX
                && !infohashes.contains(&infohash)
            {
                infohashes.push(infohash);
            }
        }
        let port = port.ok_or(DecodeError::Port)?;
        if infohashes.is_empty() {
            return Err(DecodeError::Infohash);
        }
        Ok(Self { port, infohashes, cookie })
    }

    /// Appends the datagram for one of the groups.
    pub fn encode(&self, group: Group, out: &mut Vec<u8>) {
        out.extend_from_slice(REQUEST_LINE);
        let (host, port) = (group.addr(), self.port);
        out.extend_from_slice(format!("\r\nHost: {host}\r\nPort: {port}\r\n").as_bytes());
        for infohash in &self.infohashes {
            out.extend_from_slice(b"Infohash: ");
            for byte in infohash {
                out.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        if let Some(cookie) = self.cookie {
            out.extend_from_slice(b"cookie: ");
            out.extend_from_slice(cookie);
            out.extend_from_slice(b"\r\n");
        }
        // Two empty lines, as BEP 14 prints them.
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// We take part in a swarm from now on.
    Joined {
        /// Which (BEP 52: the first 20 bytes of a v2 infohash).
        infohash: [u8; 20],
        /// BEP 27: the torrent is kept to its trackers, so nothing comes of this.
        private: bool,
    },
    /// We no longer do.
    Left {
        /// Which.
        infohash: [u8; 20],
    },
    /// A datagram came to one of the groups.
    Datagram {
        /// Its sender.
        from: SocketAddr,
        /// All of it.
        bytes: &'a [u8],
    },
    /// A time that [`Lsd::next_timeout`] named has come.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send to a group, from every interface that is to be searched.
    Send {
        /// To which.
        group: Group,
        /// What.
        datagram: Vec<u8>,
    },
    /// There is a peer.
    Found {
        /// In which swarm.
        infohash: [u8; 20],
        /// Where it listens.
        addr: SocketAddr,
    },
}

/// Who announces our swarms and hears of others in them. Its driver drains [`Self::poll`] after
/// every [`Self::handle`].
#[derive(Clone, Debug)]
pub struct Lsd {
    port: u16,
    /// Hexadecimal; also where the jitter comes from.
    cookie: String,
    seed: u64,
    /// When each of our swarms wants to be announced next.
    due: BTreeMap<[u8; 20], Time>,
    /// No announce before this.
    earliest: Time,
    /// Bounded by the contract with the driver: one input makes at most 2 datagrams and
    /// [`INFOHASHES_MAX`] finds.
    outputs: VecDeque<Output>,
}

impl Lsd {
    /// Nothing to announce yet. `port` is where we take peer connections; seeds must differ between
    /// the nodes of a network, as they make the cookie.
    #[must_use]
    pub fn new(port: u16, seed: u64) -> Self {
        Self {
            port,
            cookie: format!("{seed:016x}"),
            seed,
            due: BTreeMap::new(),
            earliest: Time::ZERO,
            outputs: VecDeque::new(),
        }
    }

    /// Takes note of something that happened.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        match input {
            Input::Joined { infohash, private } => {
                if !private && self.due.len() < TORRENTS_MAX {
                    self.due.entry(infohash).or_insert(now);
                }
            }
            Input::Left { infohash } => {
                self.due.remove(&infohash);
            }
            Input::Datagram { from, bytes } => self.hear(from, bytes),
            Input::Tick => {}
        }
        if self.next_timeout() <= now {
            self.announce(now);
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to give [`Input::Tick`]; [`Time::NEVER`] if there is nothing to announce.
    #[must_use]
    pub fn next_timeout(&self) -> Time {
        let due = self.due.values().min();
        due.map_or(Time::NEVER, |&due| due.max(self.earliest))
    }

    /// Announces the swarms that wait the longest, as many as one datagram holds. The others have
    /// their turn a minute later.
    fn announce(&mut self, now: Time) {
        let mut turn: Vec<(Time, [u8; 20])> = self
            .due
            .iter()
            .filter(|&(_, &due)| due <= now)
            .map(|(&infohash, &due)| (due, infohash))
            .collect();
        turn.sort_unstable();
        turn.truncate(INFOHASHES_MAX);
        let next = now + INTERVAL + self.jitter();
        for (_, infohash) in &turn {
            self.due.insert(*infohash, next);
        }
        self.earliest = now + INTERVAL_MIN;
        let announce = Announce {
            port: self.port,
            infohashes: turn.into_iter().map(|(_, infohash)| infohash).collect(),
            cookie: Some(self.cookie.as_bytes()),
        };
        for group in Group::ALL {
            let mut datagram = vec![];
            announce.encode(group, &mut datagram);
            self.outputs.push_back(Output::Send { group, datagram });
        }
    }

    /// What others send to the group is theirs to get wrong: other services, broken clients and
    /// swarms that are not ours are passed over.
    fn hear(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Ok(announce) = Announce::decode(bytes) else {
            return;
        };
        if announce.cookie == Some(self.cookie.as_bytes()) {
            return;
        }
        let mut addr = from;
        addr.set_port(announce.port);
        if !compact::is_dialable(addr) {
            return;
        }
        for infohash in announce.infohashes {
            if self.due.contains_key(&infohash) {
                self.outputs.push_back(Output::Found { infohash, addr });
            }
        }
    }

    /// Up to [`JITTER_MAX`], a new one each time (a 64-bit linear congruential generator, whose
    /// high bits are good enough to spread announces).
    fn jitter(&mut self) -> Duration {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        JITTER_MAX.mul_f64((self.seed >> 32) as f64 / f64::from(u32::MAX))
    }
}

fn decode_port(digits: &[u8]) -> Option<u16> {
    // `parse` would take a plus sign.
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (port != 0).then_some(port)
}

fn decode_hex(digits: &[u8]) -> Option<[u8; 20]> {
    if digits.len() != 40 {
        return None;
    }
    let mut bytes = [0; 20];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(bytes)
}
