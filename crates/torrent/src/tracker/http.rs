//! The HTTP tracker protocol (BEP 3, 7, 23, 48): query strings and bencoded responses, both ways.
//!
//! It is neither an HTTP client nor a server: they hand in the query (what follows `?`) and the body.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::benc::{Value, Writer};
use super::compact;
use super::{
    AnnounceRequest, AnnounceResponse, Event, RESPONSE_PEERS_MAX, ResponsePeer, SCRAPE_MAX,
    ScrapeStats,
};

/// The longest query we parse. An announce is some 300 bytes; [`SCRAPE_MAX`] torrents, each byte
/// escaped, are 5.3 KiB.
pub const QUERY_LEN_MAX: usize = 8 * 1024;

/// The longest response we parse: [`RESPONSE_PEERS_MAX`] peers in dictionary form (some 80 bytes
/// each), and room for what we do not know.
pub const RESPONSE_LEN_MAX: usize = 256 * 1024;

/// An announce as it came over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceQuery {
    /// What the peer says.
    pub request: AnnounceRequest,
    /// The address that the peer claims (`ip`), if it is a literal one. Whether to believe it is
    /// the server's affair.
    pub ip: Option<IpAddr>,
    /// Whether the peer takes the compact form (BEP 23): unless it says `compact=0`. The BEP lets
    /// the tracker choose if the peer says nothing, and every living client reads it.
    pub compact: bool,
    /// Whether the dictionary form may leave out peer ids.
    pub no_peer_id: bool,
}

/// Why a query is refused. `Display` is sent to the peer as the failure reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Longer than [`QUERY_LEN_MAX`].
    #[error("query is too long")]
    TooLong,
    /// A `%` without two hexadecimal digits.
    #[error("broken percent-encoding")]
    Escape,
    /// Missing, or not 20 bytes.
    #[error("info_hash is not 20 bytes")]
    InfoHash,
    /// Missing, or not 20 bytes.
    #[error("peer_id is not 20 bytes")]
    PeerId,
    /// Missing, zero or not a number.
    #[error("port is not a number from 1 to 65535")]
    Port,
    /// A counter that is not a number.
    #[error("{0} is not a number")]
    Number(&'static str),
    /// A scrape of more than [`SCRAPE_MAX`] torrents.
    #[error("too many torrents in one scrape")]
    ScrapeMax,
    /// A scrape that names no torrent: it would ask for all, which may be large and is nobody's
    /// business.
    #[error("scrape without info_hash")]
    ScrapeAll,
}

/// What is wrong with a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The tracker understood and refused, for this reason.
    #[error("the tracker refuses: {0}")]
    Failure(String),
    /// Not a bencoded dictionary of at most [`RESPONSE_LEN_MAX`] bytes.
    #[error("the response is not a bencoded dictionary")]
    Bencode,
    /// No usable `interval`.
    #[error("the response has no interval")]
    Interval,
    /// `peers` or `peers6` has a form that no BEP describes.
    #[error("the response has a broken list of peers")]
    Peers,
    /// A scrape without `files`.
    #[error("the response has no figures")]
    Files,
}

/// Reads the query of an announce (BEP 3, 7, 23). Of a repeated key the first counts.
///
/// # Errors
/// If a required field is missing or any known field is broken. Unknown ones are ignored.
pub fn decode_announce_query(query: &[u8]) -> Result<AnnounceQuery, QueryError> {
    let fields = Fields::decode(query)?;
    let event = match fields.first("event") {
        Some(b"started") => Event::Started,
        Some(b"completed") => Event::Completed,
        Some(b"stopped") => Event::Stopped,
        // Empty (BEP 3), `paused` (BEP 21), and whatever comes later.
        _ => Event::Regular,
    };
    let request = AnnounceRequest {
        info_hash: fields.hash("info_hash").ok_or(QueryError::InfoHash)?,
        peer_id: fields.hash("peer_id").ok_or(QueryError::PeerId)?,
        port: fields
            .first("port")
            .and_then(parse)
            .filter(|&port| port != 0)
            .ok_or(QueryError::Port)?,
        uploaded: fields.number("uploaded")?.unwrap_or(0),
        downloaded: fields.number("downloaded")?.unwrap_or(0),
        left: fields.number("left")?,
        event,
        // Some clients send -1 for "as you like", as BEP 15 has it.
        numwant: fields.first("numwant").and_then(parse),
        // Any string by BEP 3; only a hexadecimal one can be passed on.
        key: fields
            .first("key")
            .and_then(|key| u32::from_str_radix(str::from_utf8(key).ok()?, 16).ok()),
    };
    Ok(AnnounceQuery {
        request,
        ip: fields.first("ip").and_then(parse),
        compact: fields.first("compact") != Some(b"0"),
        no_peer_id: fields.first("no_peer_id") == Some(b"1"),
    })
}

/// Reads the query of a scrape (BEP 48): the torrents it names.
///
/// # Errors
/// If it names none, too many, or a hash that is not 20 bytes.
pub fn decode_scrape_query(query: &[u8]) -> Result<Vec<[u8; 20]>, QueryError> {
    let fields = Fields::decode(query)?;
    let hashes = fields
        .0
        .iter()
        .filter(|(key, _)| key == b"info_hash")
        .map(|(_, value)| <[u8; 20]>::try_from(value.as_slice()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| QueryError::InfoHash)?;
    match hashes.len() {
        0 => Err(QueryError::ScrapeAll),
        len if len > SCRAPE_MAX => Err(QueryError::ScrapeMax),
        _ => Ok(hashes),
    }
}

/// The URL that announces `request` to the tracker `url` (BEP 3, 23). `tracker_id` is what the
/// tracker gave earlier.
#[must_use]
pub fn encode_announce_url(
    url: &str,
    request: &AnnounceRequest,
    tracker_id: Option<&[u8]>,
) -> String {
    let mut out = start_query(url);
    out.push_str("info_hash=");
    escape(&request.info_hash, &mut out);
    out.push_str("&peer_id=");
    escape(&request.peer_id, &mut out);
    // opentracker takes a missing `left` for unfinished, as we do.
    let left = request.left.map(|left| format!("&left={left}")).unwrap_or_default();
    out.push_str(&format!(
        "&port={}&uploaded={}&downloaded={}{left}&compact=1&no_peer_id=1",
        request.port, request.uploaded, request.downloaded
    ));
    if let Some(numwant) = request.numwant {
        out.push_str(&format!("&numwant={numwant}"));
    }
    if let Some(key) = request.key {
        out.push_str(&format!("&key={key:08x}"));
    }
    match request.event {
        Event::Regular => {}
        Event::Started => out.push_str("&event=started"),
        Event::Completed => out.push_str("&event=completed"),
        Event::Stopped => out.push_str("&event=stopped"),
    }
    if let Some(id) = tracker_id {
        out.push_str("&trackerid=");
        escape(id, &mut out);
    }
    out
}

/// The URL that scrapes these torrents at the tracker `url`; `None` if its last path segment does
/// not begin with `announce`, which by BEP 48 means that it has no scrape.
#[must_use]
pub fn encode_scrape_url(url: &str, info_hashes: &[[u8; 20]]) -> Option<String> {
    let path_len = url.find('?').unwrap_or(url.len());
    let at = url[..path_len].rfind('/')? + 1;
    let after = url[at..].strip_prefix("announce")?;
    let mut out = start_query(&format!("{}scrape{after}", &url[..at]));
    for (index, hash) in info_hashes.iter().enumerate() {
        out.push_str(if index == 0 { "info_hash=" } else { "&info_hash=" });
        escape(hash, &mut out);
    }
    Some(out)
}

/// The body of the response to an announce: peers of IPv4 under `peers`, those of IPv6 under
/// `peers6` (BEP 7, 23) or all under `peers` as dictionaries (BEP 3).
#[must_use]
pub fn encode_announce_response(
    response: &AnnounceResponse,
    compact: bool,
    no_peer_id: bool,
) -> Vec<u8> {
    let mut out = Writer::default();
    out.open(b'd');
    for (key, count) in [("complete", response.complete), ("incomplete", response.incomplete)] {
        if let Some(count) = count {
            out.int_field(key, count.into());
        }
    }
    out.int_field("interval", response.interval.as_secs());
    if let Some(min) = response.interval_min {
        out.int_field("min interval", min.as_secs());
    }
    if compact {
        encode_compact(&response.peers, &mut out);
    } else {
        encode_dictionaries(&response.peers, no_peer_id, &mut out);
    }
    if let Some(id) = &response.tracker_id {
        out.bytes_field("tracker id", id);
    }
    if let Some(warning) = &response.warning {
        out.bytes_field("warning message", warning.as_bytes());
    }
    out.close();
    out.finish()
}

fn encode_compact(peers: &[ResponsePeer], out: &mut Writer) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for peer in peers {
        let into = if peer.addr.ip().to_canonical().is_ipv4() { &mut v4 } else { &mut v6 };
        compact::encode([peer.addr], into);
    }
    // `peers` is there even when empty: clients of before BEP 7 insist on it.
    out.bytes_field("peers", &v4);
    if !v6.is_empty() {
        out.bytes_field("peers6", &v6);
    }
}

fn encode_dictionaries(peers: &[ResponsePeer], no_peer_id: bool, out: &mut Writer) {
    out.bytes(b"peers");
    out.open(b'l');
    for peer in peers {
        out.open(b'd');
        out.bytes_field("ip", peer.addr.ip().to_string().as_bytes());
        if let Some(id) = &peer.peer_id
            && !no_peer_id
        {
            out.bytes_field("peer id", id);
        }
        out.int_field("port", peer.addr.port().into());
        out.close();
    }
    out.close();
}

/// The body that refuses a request (BEP 3 `failure reason`).
#[must_use]
pub fn encode_failure(reason: &str) -> Vec<u8> {
    let mut out = Writer::default();
    out.open(b'd');
    out.bytes_field("failure reason", reason.as_bytes());
    out.close();
    out.finish()
}

/// The body of the response to a scrape (BEP 48).
#[must_use]
pub fn encode_scrape_response(files: &[([u8; 20], ScrapeStats)]) -> Vec<u8> {
    let mut files = files.to_vec();
    files.sort_by_key(|(hash, _)| *hash);
    files.dedup_by_key(|(hash, _)| *hash);
    let mut out = Writer::default();
    out.open(b'd');
    out.bytes(b"files");
    out.open(b'd');
    for (hash, stats) in files {
        out.bytes(&hash);
        out.open(b'd');
        out.int_field("complete", stats.complete.into());
        out.int_field("downloaded", stats.downloaded.into());
        out.int_field("incomplete", stats.incomplete.into());
        out.close();
    }
    out.close();
    out.close();
    out.finish()
}

/// Reads any tracker's response to an announce: compact (BEP 7, 23) or not (BEP 3), keys in any
/// order. Peers that cannot be dialled (port 0, host names, multicast) are left out.
///
/// # Errors
/// If the tracker refused, or what it sent is not a response.
pub fn decode_announce_response(body: &[u8]) -> Result<AnnounceResponse, ResponseError> {
    let root = decode_root(body)?;
    let seconds = |key| {
        let seconds = root.field(key)?.int()?;
        Some(Duration::from_secs(u32::try_from(seconds).ok()?.into()))
    };
    let count = |key| u32::try_from(root.field(key)?.int()?).ok();
    let mut peers = match root.field("peers") {
        None => Vec::new(),
        Some(Value::Bytes(bytes)) => {
            bare(compact::decode_v4(bytes, RESPONSE_PEERS_MAX).ok_or(ResponseError::Peers)?)
        }
        Some(Value::List(list)) => {
            list.iter().filter_map(dictionary_peer).take(RESPONSE_PEERS_MAX).collect()
        }
        Some(_) => return Err(ResponseError::Peers),
    };
    match root.field("peers6") {
        None => {}
        Some(Value::Bytes(bytes)) => peers.extend(bare(
            compact::decode_v6(bytes, RESPONSE_PEERS_MAX - peers.len())
                .ok_or(ResponseError::Peers)?,
        )),
        Some(_) => return Err(ResponseError::Peers),
    }
    Ok(AnnounceResponse {
        interval: seconds("interval").ok_or(ResponseError::Interval)?,
        interval_min: seconds("min interval"),
        tracker_id: root.field("tracker id").and_then(Value::bytes).map(<[u8]>::to_vec),
        complete: count("complete"),
        incomplete: count("incomplete"),
        warning: root.field("warning message").and_then(Value::bytes).map(text),
        peers,
    })
}

/// Reads a tracker's response to a scrape (BEP 48); torrents whose figures are broken are left out.
///
/// # Errors
/// If the tracker refused, or what it sent is not a response.
pub fn decode_scrape_response(body: &[u8]) -> Result<Vec<([u8; 20], ScrapeStats)>, ResponseError> {
    let root = decode_root(body)?;
    let Some(Value::Dict(files)) = root.field("files") else {
        return Err(ResponseError::Files);
    };
    let stats = |file: &Value<'_>| {
        let count = |key| u32::try_from(file.field(key)?.int()?).ok();
        Some(ScrapeStats {
            complete: count("complete")?,
            downloaded: count("downloaded").unwrap_or(0),
            incomplete: count("incomplete")?,
        })
    };
    Ok(files
        .iter()
        .filter_map(|(hash, file)| Some(((*hash).try_into().ok()?, stats(file)?)))
        .collect())
}

fn decode_root(body: &[u8]) -> Result<Value<'_>, ResponseError> {
    if body.len() > RESPONSE_LEN_MAX {
        return Err(ResponseError::Bencode);
    }
    let root = Value::decode(body).ok_or(ResponseError::Bencode)?;
    if !matches!(root, Value::Dict(_)) {
        return Err(ResponseError::Bencode);
    }
    match root.field("failure reason").and_then(Value::bytes) {
        Some(reason) => Err(ResponseError::Failure(text(reason))),
        None => Ok(root),
    }
}

/// A stranger's text, for logs: at most 200 characters, none of which moves a terminal's cursor.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn bare(addrs: Vec<SocketAddr>) -> Vec<ResponsePeer> {
    addrs.into_iter().map(|addr| ResponsePeer { addr, peer_id: None }).collect()
}

fn dictionary_peer(value: &Value<'_>) -> Option<ResponsePeer> {
    let ip: IpAddr = parse(value.field("ip")?.bytes()?)?;
    let port = u16::try_from(value.field("port")?.int()?).ok()?;
    let addr = SocketAddr::new(ip.to_canonical(), port);
    compact::is_dialable(&addr).then(|| ResponsePeer {
        addr,
        peer_id: value.field("peer id").and_then(Value::bytes).and_then(|id| id.try_into().ok()),
    })
}

/// The keys and values of a query, decoded.
struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields {
    fn decode(query: &[u8]) -> Result<Self, QueryError> {
        if query.len() > QUERY_LEN_MAX {
            return Err(QueryError::TooLong);
        }
        query
            .split(|&byte| byte == b'&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let mut halves = pair.splitn(2, |&byte| byte == b'=');
                let key = unescape(halves.next().unwrap_or_default())?;
                Ok((key, unescape(halves.next().unwrap_or_default())?))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn first(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    fn hash(&self, key: &str) -> Option<[u8; 20]> {
        self.first(key)?.try_into().ok()
    }

    fn number(&self, key: &'static str) -> Result<Option<u64>, QueryError> {
        match self.first(key) {
            None | Some(b"") => Ok(None),
            Some(value) => parse(value).map(Some).ok_or(QueryError::Number(key)),
        }
    }
}

fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    str::from_utf8(bytes).ok()?.parse().ok()
}

/// Undoes RFC 1738 escapes. `+` is itself: that RFC has it among the safe characters, and hashes
/// are not forms.
fn unescape(bytes: &[u8]) -> Result<Vec<u8>, QueryError> {
    let digit = |byte: Option<&u8>| {
        byte.and_then(|&byte| char::from(byte).to_digit(16)).ok_or(QueryError::Escape)
    };
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (digit(rest.next())?, digit(rest.next())?);
            out.push((high * 16 + low) as u8);
        } else {
            out.push(byte);
        }
    }
    Ok(out)
}

fn escape(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// The URL, ready to have a query appended; it may have one already (BEP 3 does not forbid it, and
/// private trackers put the user's key there).
fn start_query(url: &str) -> String {
    let url = url.split('#').next().unwrap_or(url);
    match url.split_once('?') {
        None => format!("{url}?"),
        Some((_, "")) => url.to_owned(),
        Some(_) => format!("{url}&"),
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
