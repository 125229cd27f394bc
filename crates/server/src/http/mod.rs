//! The web server: what a node fetches from its boot program's script on, what its agent reports, and
//! what people and programs may ask (docs/api.md).
//!
//! It serves what is on offer at the moment ([`Offer`]), swapped whole when the lab changes. Without
//! token or password (`login`) nothing here changes anything but the table of nodes, and that only by what is
//! proved to come from the node (`crate::fleet`); starting and stopping go through the lab's own socket, which
//! only its owner can open.

mod about;
mod access;
mod api;
mod boots;
mod dashboard;
mod feed;
mod files;
mod keeper;
mod listeners;
pub(crate) mod login;
mod metrics;
mod moving;
mod next_boots;
mod offer;
mod orders;
mod pieces;
mod places;
mod purse;
mod range;
mod script;
mod segment;
mod serve;
mod tls;
mod v1;
mod versions;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, RawQuery, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use boot::{ImageName, ImagePath, Mac, report};
use serde::Serialize;

pub(crate) use about::{About, Tell, Wait};
pub(crate) use boots::{Boots, named};
pub(crate) use feed::run as run_feed;
pub(crate) use files::{SentCount, Served};
pub(crate) use keeper::{DoorCounts, Keeper};
pub(crate) use next_boots::{NextBoot, NextBoots};
pub(crate) use offer::{ImageFiles, Offer};
pub(crate) use orders::Orders;
pub(crate) use script::{ScriptSettings, Told, render as render_script};
pub(crate) use serve::{Door, serve, serve_owner};
pub(crate) use tls::Tls;
pub(crate) use v1::DoneView;
pub(crate) use versions::FAREWELL;

use crate::fleet::{Caller, Claim, Event, Fetched, Proven, Service, SharedFleet, UnixMs};
use crate::lab::settings::DashboardSettings;
use feed::Feed;
use login::Login;
use serve::Source;
use versions::Versions;

/// What is served at the moment.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) offer: Offer,
    pub(crate) script: ScriptSettings,
    pub(crate) dashboard: DashboardSettings,
    /// Whether nodes can be switched on and off.
    pub(crate) has_power: bool,
}

/// What the web server has to work with.
#[derive(Clone)]
pub(crate) struct Site(Arc<Inner>);

struct Inner {
    live: RwLock<Arc<Live>>,
    versions: Mutex<Versions>,
    fleet: SharedFleet,
    next: NextBoots,
    orders: Orders,
    login: Login,
    counters: Counters,
    feed: Feed,
    keeper: Keeper,
    segment: segment::Segment,
    is_ready: AtomicBool,
    is_dhcp_well: AtomicBool,
    about: About,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    refused: AtomicU64,
    sent: SentCount,
    reports: AtomicU64,
}

/// What the web server has done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct HttpCounts {
    pub(crate) request_count: u64,
    /// Requests that were answered with 4xx or 5xx.
    pub(crate) refusal_count: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) report_count: u64,
    #[serde(flatten)]
    pub(crate) doors: DoorCounts,
}

impl Site {
    pub(crate) fn new(
        live: Live,
        fleet: SharedFleet,
        next: NextBoots,
        orders: Orders,
        about: About,
    ) -> Self {
        let mut versions = Versions::default();
        versions.offer(&live.offer.images, Instant::now());
        let keeper = Keeper::new(about.address, fleet.standings());
        Self(Arc::new(Inner {
            live: RwLock::new(Arc::new(live)),
            versions: Mutex::new(versions),
            fleet,
            next,
            orders,
            login: Login::new(about.lab.clone()),
            counters: Counters::default(),
            feed: Feed::default(),
            keeper,
            segment: segment::Segment::default(),
            is_ready: AtomicBool::new(false),
            is_dhcp_well: AtomicBool::new(true),
            about,
        }))
    }

    /// Puts another offer in place of the present one; transfers that have begun go on.
    pub(crate) fn publish(&self, live: Live) {
        self.versions().offer(&live.offer.images, Instant::now());
        if live.dashboard.password != self.live().dashboard.password {
            self.0.login.end_all();
        }
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
    }

    /// Closes old versions that nobody fetches any more; to be called every few seconds.
    pub(crate) fn sweep(&self) {
        self.versions().sweep(Instant::now());
    }

    fn versions(&self) -> MutexGuard<'_, Versions> {
        self.0.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nodes can boot.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.0.is_ready.store(is_ready, Ordering::Relaxed);
    }

    /// Whether DHCP serves, where it is to: without it nodes cannot boot either.
    pub(crate) fn set_dhcp_well(&self, is_well: bool) {
        self.0.is_dhcp_well.store(is_well, Ordering::Relaxed);
    }

    /// Who gives places to those who ask.
    pub(crate) fn keeper(&self) -> Keeper {
        self.0.keeper.clone()
    }

    /// What is on offer.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.0.live.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn counts(&self) -> HttpCounts {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HttpCounts {
            request_count: read(&counters.requests),
            refusal_count: read(&counters.refused),
            sent_bytes: counters.sent.bytes(),
            report_count: read(&counters.reports),
            doors: self.0.keeper.counts(),
        }
    }

    /// What answers requests.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/boot.ipxe", get(boot_script))
            .route("/torrents/{file}", get(torrent))
            .route("/images/{name}/{*path}", get(image))
            .route("/versions/{infohash}/{name}/{*path}", get(version))
            .merge(api::routes())
            .merge(access::guarded(&self))
            .route("/healthz", get(metrics::health))
            .route("/readyz", get(metrics::readiness))
            .fallback(get(fixed))
            .layer(axum::middleware::from_fn_with_state(self.clone(), access::door))
            .layer(axum::middleware::from_fn_with_state(self.clone(), watch))
            .with_state(self)
    }

    /// Believes what was said in a node's name, or gives it back and keeps it as hearsay.
    async fn prove<T: Claim>(
        &self,
        source: Source,
        headers: &HeaderMap,
        claim: T,
    ) -> Result<Proven<T>, T> {
        let own = self.0.about.address;
        let proof = headers.get(report::PROOF_FIELD).and_then(|text| text.to_str().ok());
        let caller = Caller {
            address: source.v4(),
            is_own: match source {
                Source::Owner => true,
                // Who tries a lab on loopback is on this machine, and nobody else reaches it.
                Source::Peer(peer) => own.is_loopback() && peer.is_loopback(),
            },
            proof: proof.and_then(|text| self.0.about.proofs.check(claim.node(), text)),
        };
        if caller.proof.is_none() {
            (self.0.about.leases_known)().await;
        }
        self.0.fleet.prove(&caller, claim, |address| self.0.segment.look(address, Instant::now()))
    }

    /// The secret of a node for its present boot.
    fn issue(&self, node: Mac) -> String {
        let issued = self.0.fleet.lock().next_proof(UnixMs::now(), node);
        self.0.about.proofs.issue(node, issued)
    }

    fn fetched(&self, source: Source, what: Fetched) {
        if let Some(address) = source.v4() {
            self.0.fleet.tell(&Event::Fetched { address, service: Service::Http, what });
        }
    }
}

impl Source {
    /// Nodes are known by their IPv4 address.
    fn v4(self) -> Option<Ipv4Addr> {
        match self {
            Self::Peer(IpAddr::V4(address)) => Some(address),
            Self::Peer(IpAddr::V6(_)) | Self::Owner => None,
        }
    }
}

/// Counts, and writes the log.
async fn watch(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    request: Request,
    next: axum::middleware::Next,
) -> Response<Body> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answer = next.run(request).await;
    let status = answer.status();
    let counters = &site.0.counters;
    counters.requests.fetch_add(1, Ordering::Relaxed);
    let is_refused = status.is_client_error() || status.is_server_error();
    if is_refused {
        counters.refused.fetch_add(1, Ordering::Relaxed);
    }
    // Ranges of images and reports come by the thousand; what matters of them is in the NODE lines.
    let frequent = [
        "/images/",
        "/versions/",
        "/api/",
        "/v1/",
        "/metrics",
        "/dashboard/",
        "/healthz",
        "/readyz",
    ];
    if frequent.iter().any(|begin| path.starts_with(begin)) || is_refused {
        tracing::debug!(target: "HTTP", "{source} {method} {path} {}", status.as_u16());
    } else {
        tracing::info!(target: "HTTP", "{source} {method} {path} {}", status.as_u16());
    }
    answer
}

/// A sentence, for people who look with a browser or curl.
fn refuse(status: StatusCode, text: &str) -> Response<Body> {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}

async fn boot_script(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response<Body> {
    let query = query.unwrap_or_default();
    let live = site.live();
    let boots = &live.script.boots;
    let asked = match script::parse(&query) {
        Ok(asked) => asked,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    // What it says of itself, and what the lab says of it: nothing that was said of it before.
    let asked = asked.map(|asked| boots.completed(asked, source.v4()));
    let mut told = Told::default();
    if let Some(asked) = &asked {
        let mut turn = None;
        if let Ok(proven) = site.prove(source, &headers, asked.clone()).await {
            site.0.fleet.tell(&Event::Script(proven.clone()));
            turn = Some(site.0.fleet.lock().turn(&proven));
            told.proof = Some(site.issue(asked.mac));
        }
        let fleet = site.0.fleet.lock();
        told.name = fleet.node(asked.mac).and_then(|node| node.summary.name.clone());
        drop(fleet);
        told.next = site.0.next.of(asked.mac, turn);
    }
    let is_ignored = asked.as_ref().is_some_and(|asked| boots.is_ignored(asked.mac));
    if is_ignored && told.next.is_none() && !script::waits(&query) {
        return refuse(StatusCode::NOT_FOUND, "this node is not booted from here");
    }
    match script::render(&live.script, asked.as_ref(), &told) {
        Ok(text) => {
            // It has a secret in it.
            let fields = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (CACHE_CONTROL, "no-store")];
            (fields, text).into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Files whose whole path is known.
async fn fixed(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    request: Request,
) -> Response<Body> {
    let path = request.uri().path();
    let live = site.live();
    let Some(file) = live.offer.fixed.get(path) else {
        return refuse(StatusCode::NOT_FOUND, "there is nothing under this path");
    };
    let phase1 = ["vmlinuz", "initramfs.img", "lab.cpio"];
    let name = path.rsplit('/').next().unwrap_or_default();
    if let Some(name) = phase1.into_iter().find(|known| *known == name) {
        site.fetched(source, Fetched::Phase1(name));
    } else if path.starts_with("/manifest.") {
        site.fetched(source, Fetched::Manifest);
    } else if path.starts_with("/ipxe/") {
        site.fetched(source, Fetched::BootProgram(name.to_owned()));
    }
    file.clone().answer(request.method(), request.headers(), &site.0.counters.sent)
}

async fn torrent(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    Path(file): Path<String>,
    request: Request,
) -> Response<Body> {
    let name = file.strip_suffix(".torrent").and_then(|name| name.parse::<ImageName>().ok());
    let live = site.live();
    let found = name.and_then(|name| Some((live.offer.torrents.get(&name)?, name)));
    let Some((served, name)) = found else {
        return refuse(StatusCode::NOT_FOUND, "no image of this name is offered");
    };
    site.fetched(source, Fetched::Torrent(name));
    served.clone().answer(request.method(), request.headers(), &site.0.counters.sent)
}

/// A file of the version that is on offer.
async fn image(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    Path((name, path)): Path<(String, String)>,
    request: Request,
) -> Response<Body> {
    let live = site.live();
    let found = name.parse::<ImageName>().ok();
    let found = found.and_then(|name| Some((live.offer.images.get(&name)?.clone(), name)));
    let Some((files, name)) = found else {
        return refuse(StatusCode::NOT_FOUND, "no image of this name is offered");
    };
    site.image_file(source, &files, name, &path, &request)
}

/// A file of one version, as a web seed must give it.
async fn version(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    Path((infohash, name, path)): Path<(String, String, String)>,
    request: Request,
) -> Response<Body> {
    let found = name.parse::<ImageName>().ok().and_then(|name| {
        let files = site.versions().find(&infohash, &name, Instant::now())?;
        Some((files, name))
    });
    let Some((files, name)) = found else {
        return refuse(StatusCode::NOT_FOUND, "this version of the image is not offered any more");
    };
    site.image_file(source, &files, name, &path, &request)
}

impl Site {
    fn image_file(
        &self,
        source: Source,
        files: &ImageFiles,
        name: ImageName,
        path: &str,
        request: &Request,
    ) -> Response<Body> {
        let Ok(path) = path.parse::<ImagePath>() else {
            return refuse(StatusCode::NOT_FOUND, "the image has no such file");
        };
        // Opening may wait for the disk, and what it takes from the cache it takes at once: a change
        // of threads would cost more.
        match files.file(&path) {
            Ok(Some(served)) => {
                self.fetched(source, Fetched::Image(name));
                served.answer(request.method(), request.headers(), &self.0.counters.sent)
            }
            Ok(None) => refuse(StatusCode::NOT_FOUND, "the image has no such file"),
            Err(error) => {
                tracing::warn!(target: "HTTP", "{error}");
                let text = "the file was changed since it was published; a new version follows";
                refuse(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        }
    }
}

#[cfg(test)]
mod tests;
