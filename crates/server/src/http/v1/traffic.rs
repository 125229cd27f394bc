//! Who gives to whom, how fast, and what happened: `/v1/swarm`, `/v1/throughput`, `/v1/log`, `/v1/events`.

// What utoipa makes of `params(…)` names the type by its path.
#![allow(unused_qualifications)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use boot::report::Source;
use boot::{Mac, Stage};
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use super::reply;
use crate::fleet::{Fleet, LOG_MAX, LogLine};
use crate::http::Site;
use crate::http::feed::{self, SAMPLES_MAX, Sample};
use crate::http::keeper::Seat;
use crate::http::listeners::LISTENERS_MAX;
use crate::http::serve::{Bounded, Source as Who};

/// Samples when nobody says how many: ten minutes.
const SECONDS_DEFAULT: usize = 600;

/// Lines when nobody says how many.
const LINES_DEFAULT: usize = 200;

/// Nodes of the swarm in an answer, those that gave most first.
const GIVERS_MAX: usize = 1_000;

/// Gifts in an answer: all of a room of twenty; of a thousand nodes each has sixteen, which nobody reads.
const GIFTS_MAX: usize = 500;

/// Who gives to whom, as far as it is known: the server's own peer counts what it sends, and each node
/// says how much others had from it, and how much it had from whom.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SwarmView {
    /// What the server's own peer has sent since it started.
    server_uploaded_bytes: u64,
    server_upload_rate_bytes_per_s: u64,
    /// What the server sent over HTTP since it started, phase 1 included.
    server_http_bytes: u64,
    /// What nodes have sent to one another, each in its present boot.
    nodes_uploaded_bytes: u64,
    /// The server's own peer's share of all that peers have sent, 0 to 1; null if nothing was sent.
    server_share: Option<f64>,
    /// Those that gave or take, who gave most first; 1,000 at most.
    nodes: Vec<SwarmNodeView>,
    /// Who gave to whom, most first; 500 at most. What a node has had by HTTP is not among them.
    gifts: Vec<GiftView>,
}

/// What somebody gave to a node, of the image that this has downloaded last in its present boot.
#[derive(Debug, Serialize, ToSchema)]
struct GiftView {
    /// The Ethernet address of the node that gave; null if it was no node that is known.
    from: Option<String>,
    /// Whether this server gave.
    is_from_server: bool,
    /// The IP address of who gave.
    from_address: String,
    /// The Ethernet address of the node that took.
    to: String,
    bytes: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct SwarmNodeView {
    mac: String,
    name: Option<String>,
    image: Option<String>,
    stage: Option<&'static str>,
    /// What others had from it.
    uploaded_bytes: u64,
    /// What it has of its image.
    verified_bytes: Option<u64>,
    total_bytes: Option<u64>,
    rate_bytes_per_s: u64,
    /// Peers that it is connected to.
    peer_count: u32,
    /// Whether its bytes come by HTTP because no peer answers.
    is_by_http: bool,
}

/// For how long.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ThroughputQuery {
    /// The latest so many seconds.
    #[param(minimum = 1, maximum = 3600, default = 600)]
    seconds: Option<usize>,
}

/// A sample for each second, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ThroughputView {
    samples: Vec<Sample>,
}

/// Which lines.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// Only lines after that of this number.
    after: Option<u64>,
    /// The latest so many.
    #[param(minimum = 1, maximum = 1024, default = 200)]
    limit: Option<usize>,
}

/// What nodes did, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LogPage {
    lines: Vec<LogView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogView {
    /// Counts from 1 at each start of the server; 1,024 lines are kept.
    number: u64,
    unix_ms: u64,
    mac: String,
    /// The node's name, or its Ethernet address.
    node: String,
    text: String,
    is_failure: bool,
}

impl From<&LogLine> for LogView {
    fn from(line: &LogLine) -> Self {
        Self {
            number: line.number,
            unix_ms: line.at.0,
            mac: line.mac.to_string(),
            node: line.label.clone(),
            text: line.text.clone(),
            is_failure: line.is_failure,
        }
    }
}

/// Who gives to whom.
#[utoipa::path(
    get, path = "/v1/swarm", tag = "swarm",
    responses(
        (status = 200, body = SwarmView),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn swarm(State(site): State<Site>) -> Response<Body> {
    let seeds = (site.0.about.seeding)();
    let mut nodes = vec![];
    let mut given: u64 = 0;
    let fleet = site.0.fleet.lock();
    let gifts = gifts(&fleet, site.0.about.address);
    for node in fleet.nodes().map(|node| &node.summary) {
        given = given.saturating_add(node.uploads);
        let (progress, seed_peers) = match &node.stage {
            Some(Stage::Downloading(progress)) => (Some(progress), 0),
            Some(Stage::Booted { seeding: Some(seeding), .. }) => (None, seeding.peers),
            _ => (None, 0),
        };
        if node.uploads == 0 && progress.is_none() {
            continue;
        }
        nodes.push(SwarmNodeView {
            mac: node.mac.to_string(),
            name: node.name.clone(),
            image: node.image().map(ToString::to_string),
            stage: node.stage.as_ref().map(Stage::name),
            uploaded_bytes: node.uploads,
            verified_bytes: progress.map(|progress| progress.verified_bytes),
            total_bytes: progress.map(|progress| progress.total_bytes),
            rate_bytes_per_s: progress.map_or(0, |progress| progress.rate_bytes_per_s),
            peer_count: progress.map_or(seed_peers, |progress| progress.peers),
            is_by_http: progress.is_some_and(|progress| progress.http),
        });
    }
    drop(fleet);
    nodes.sort_by_key(|node| std::cmp::Reverse(node.uploaded_bytes));
    nodes.truncate(GIVERS_MAX);
    let server: u64 = seeds.iter().map(|seed| seed.uploaded_bytes).sum();
    let all = server.saturating_add(given);
    reply::json(&SwarmView {
        server_uploaded_bytes: server,
        server_upload_rate_bytes_per_s: seeds.iter().map(|seed| seed.upload_rate_bytes_per_s).sum(),
        server_http_bytes: site.counts().sent_bytes,
        nodes_uploaded_bytes: given,
        server_share: (all > 0).then(|| server as f64 / all as f64),
        nodes,
        gifts,
    })
}

/// The largest gifts.
fn gifts(fleet: &Fleet, server: IpAddr) -> Vec<GiftView> {
    let by_address: BTreeMap<IpAddr, Mac> = fleet
        .nodes()
        .filter_map(|node| Some((IpAddr::from(node.summary.address?), node.summary.mac)))
        .collect();
    let mut all = vec![];
    for node in fleet.nodes() {
        for source in &node.sources {
            let is_node = source.address != server;
            let from = by_address.get(&source.address).copied().filter(|_| is_node);
            all.push((source, from, node.summary.mac));
        }
    }
    all.sort_by_key(|(source, ..)| std::cmp::Reverse(source.bytes));
    all.truncate(GIFTS_MAX);
    let view = |(source, from, to): (&Source, Option<Mac>, Mac)| GiftView {
        from: from.map(|mac| mac.to_string()),
        is_from_server: source.address == server,
        from_address: source.address.to_string(),
        to: to.to_string(),
        bytes: source.bytes,
    };
    all.into_iter().map(view).collect()
}

/// How fast bytes flowed, second by second, for an hour at most.
#[utoipa::path(
    get, path = "/v1/throughput", tag = "swarm", params(ThroughputQuery),
    responses(
        (status = 200, body = ThroughputView),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn throughput(
    State(site): State<Site>,
    query: Result<Query<ThroughputQuery>, QueryRejection>,
) -> Result<Response<Body>, Problem> {
    let ThroughputQuery { seconds } = asked(query)?;
    let seconds = within("seconds", seconds.unwrap_or(SECONDS_DEFAULT), SAMPLES_MAX)?;
    Ok(reply::json(&ThroughputView { samples: site.0.feed.samples(seconds) }))
}

/// What is asked for, if it can be read.
fn asked<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::bad(error.body_text()))
}

/// A number of things of which there are so many at most.
fn within(name: &str, count: usize, most: usize) -> Result<usize, Problem> {
    match (1..=most).contains(&count) {
        true => Ok(count),
        false => Err(Problem::bad(format!("{name} is 1 to {most}"))),
    }
}

/// What nodes did: the latest lines.
#[utoipa::path(
    get, path = "/v1/log", tag = "events", params(LogQuery),
    responses(
        (status = 200, body = LogPage),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn log(
    State(site): State<Site>,
    query: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Response<Body>, Problem> {
    let LogQuery { after, limit } = asked(query)?;
    // What the document calls an int64.
    if after.is_some_and(|after| i64::try_from(after).is_err()) {
        return Err(Problem::bad("after is the number of a line"));
    }
    let limit = within("limit", limit.unwrap_or(LINES_DEFAULT), LOG_MAX)?;
    let fleet = site.0.fleet.lock();
    let lines = fleet.log().after(after.unwrap_or(0), limit);
    let lines = lines.map(LogView::from).collect();
    drop(fleet);
    Ok(reply::json(&LogPage { lines }))
}

/// What happens, as it happens: server-sent events `hello`, `nodes`, `log` and `sample`.
///
/// `hello` comes first: ask for the nodes then, and apply what follows. Who is ten seconds behind is
/// cut off, and so is who listens longest if somebody else has no place.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    responses(
        (status = 200, content_type = "text/event-stream", description = "Goes on for ever"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json",
         description = "64 listen already who may command"),
    )
)]
pub(super) async fn events(
    State(site): State<Site>,
    Extension(source): Extension<Who>,
    seat: Option<Extension<Arc<Seat>>>,
    headers: HeaderMap,
) -> Response<Body> {
    let may_command = may_command(&site, source, &headers);
    if let Some(Extension(seat)) = seat.filter(|_| may_command) {
        seat.trust();
    }
    let Some(listener) = site.0.feed.listen(source, may_command) else {
        let problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{} listen already: close a page, or try again", LISTENERS_MAX),
        );
        let mut answer = problem.into_response();
        answer.headers_mut().insert(RETRY_AFTER, axum::http::HeaderValue::from_static("10"));
        return answer;
    };
    let revision = site.0.fleet.lock().revision();
    let hello = feed::message("hello", revision, &format!("{{\"revision\":{revision}}}"));
    // A browser that was cut off comes again after two seconds.
    let hello: Arc<str> = Arc::from(format!("retry: 2000\n{hello}"));
    let messages =
        futures_util::stream::unfold((Some(hello), listener), |(first, mut listener)| async {
            let message = match first {
                Some(first) => first,
                None => listener.next().await?,
            };
            let bytes = Bytes::from_owner(Message(message));
            Some((Ok::<_, Infallible>(bytes), (None, listener)))
        });
    let fields = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    (fields, Extension(Bounded), Body::from_stream(messages)).into_response()
}

/// Whether who listens may command as well; that it looks on is no reason to ask for a session's word.
fn may_command(site: &Site, source: Who, headers: &HeaderMap) -> bool {
    match source {
        Who::Owner => true,
        Who::Peer(from) if headers.contains_key(AUTHORIZATION) => {
            site.0.login.allow(from, headers).is_ok()
        }
        Who::Peer(_) => site.0.login.session(headers).is_some(),
    }
}

/// What all listeners share.
struct Message(Arc<str>);

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
