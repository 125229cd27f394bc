//! `/v1/nodes`: the fleet, page by page, and one node with its timeline.

// What utoipa makes of `params(…)` names the type by its path.
#![allow(unused_qualifications)]

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::LINK;
use axum::http::{HeaderMap, Response};
use axum::response::IntoResponse;
use boot::report::{Hardware, Machine};
use boot::{Mac, Stage};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use super::reply::{self, Tag};
use crate::fleet::{self, Fleet, LastFailure, Node, Step, Summary, UnixMs};
use crate::http::{NextBoot, Site, pieces};
use crate::services::deeds::SILENT_MS;
use crate::status;

/// Nodes on a page when nobody says how many.
const LIMIT_DEFAULT: usize = 200;

/// The most nodes on a page: half a megabyte of JSON.
const LIMIT_MAX: usize = 1_000;

/// Characters of a text to look for that count.
const TEXT_LEN_MAX: usize = 100;

/// Which nodes, and how many of them.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct NodesQuery {
    /// Only those at this stage; `none` is those that were never seen.
    stage: Option<String>,
    /// Only those that boot or have booted this image.
    image: Option<String>,
    /// Only those that the configuration names (`true`), or does not (`false`).
    known: Option<bool>,
    /// Only those with this standing: `known`, `pending`, `waiting` or `ignored`.
    standing: Option<String>,
    /// Only those whose name, Ethernet address or IP address has this text in it, in either case.
    #[param(max_length = 100)]
    q: Option<String>,
    /// Nodes on a page.
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<usize>,
    /// Only those after this Ethernet address: `next` of the page before.
    #[param(pattern = "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$")]
    after: Option<String>,
}

/// A page of nodes, in the order of their Ethernet addresses.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodesPage {
    nodes: Vec<NodeView>,
    /// Nodes that the question is about, on all pages.
    matching_count: usize,
    /// All nodes.
    count: usize,
    /// The state of the fleet that this is; counts up with each change.
    revision: u64,
    /// What to ask with `after` for the next page; null on the last.
    next: Option<String>,
}

/// A node in a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct NodeView {
    /// Its Ethernet address.
    #[schema(example = "52:54:00:12:34:56")]
    mac: String,
    /// What the configuration calls it.
    name: Option<String>,
    /// Whether the configuration names it.
    known: bool,
    /// `known`; `pending`, if it is not and boots meanwhile; `waiting`, if it is not and waits to be
    /// accepted; or `ignored`.
    #[schema(example = "known")]
    standing: &'static str,
    address: Option<String>,
    /// What asked first in this boot: `bios`, `uefi`, `uefi_http`, `ipxe`.
    firmware: Option<&'static str>,
    arch: Option<&'static str>,
    uuid: Option<String>,
    /// Where it is in its boot; null if it was never seen.
    #[schema(example = "downloading")]
    stage: Option<&'static str>,
    image: Option<String>,
    /// How far its download is, while it lasts.
    progress: Option<ProgressView>,
    /// Bytes that other nodes have had from it in this boot.
    uploaded_bytes: u64,
    /// Since when it is at its stage.
    since_unix_ms: u64,
    /// When it was last heard of.
    seen_unix_ms: u64,
    /// When this boot began.
    boot_unix_ms: u64,
    /// Boots that were seen, this one included.
    boot_count: u64,
    /// Its latest failure, which may be over.
    failure: Option<FailureView>,
    /// The fleet's revision when something of it changed last.
    revision: u64,
}

#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
struct ProgressView {
    verified_bytes: u64,
    total_bytes: u64,
    rate_bytes_per_s: u64,
    peer_count: u32,
    /// Whether the bytes come by HTTP because no peer answers.
    is_by_http: bool,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
struct FailureView {
    /// For ever the same.
    #[schema(example = "BT21")]
    code: &'static str,
    /// What happened, in a few words.
    what: &'static str,
    /// The case, in a sentence.
    reason: String,
    /// What a person can do about it.
    cure: &'static str,
    unix_ms: u64,
    /// Whether the node is at this failure now.
    is_current: bool,
}

/// All about a node.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct NodePage {
    #[serde(flatten)]
    node: NodeView,
    /// In plain words where it is, what it waits for, and what to do if that takes too long.
    why: WhyView,
    /// The stages of this boot, oldest first.
    timeline: Vec<StepView>,
    /// Boots before this one, latest first.
    boots: Vec<PastBootView>,
    /// What it did, latest first.
    events: Vec<EventView>,
    /// The latest lines of its agent's log, oldest first.
    log: Vec<String>,
    machine: Option<MachineView>,
    /// What nodes.yaml has it boot; null if it gets the menu.
    assigned: Option<BootView>,
    /// What it boots the next time, whatever is assigned.
    next_boot: Option<BootView>,
    /// Whether it can be told to start anew: its agent was heard of lately.
    is_in_reach: bool,
    /// What was said last in its name and is not proved to be its word; used for nothing.
    hearsay: Option<HearsayView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct HearsayView {
    unix_ms: u64,
    /// In a sentence, with where it came from.
    text: String,
    /// How often something was said so.
    count: u32,
}

/// What a node is to boot.
#[derive(Debug, Serialize, ToSchema)]
struct BootView {
    /// The image; null for its own disk.
    image: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct WhyView {
    headline: String,
    /// What has to happen next; null if it is where it shall be.
    waits_for: Option<String>,
    /// Whether that takes longer than in a boot that goes well.
    is_late: bool,
    cure: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct StepView {
    stage: &'static str,
    unix_ms: u64,
    /// How long it lasted; null while it does.
    took_ms: Option<u64>,
    /// The failure's code, if it is one.
    failure: Option<&'static str>,
}

#[derive(Debug, Serialize, ToSchema)]
struct PastBootView {
    /// When it began.
    unix_ms: u64,
    /// How long it took to the stage that it reached.
    took_ms: u64,
    /// That stage.
    stage: String,
    image: Option<String>,
    /// The failure's code, if it ended with one.
    failure: Option<&'static str>,
    timeline: Vec<StepView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct EventView {
    /// When it was, the last time if it was several.
    unix_ms: u64,
    text: String,
    /// How often in a row.
    count: u32,
}

/// What a node is, as its agent says.
#[derive(Debug, Serialize, ToSchema)]
struct MachineView {
    memory_bytes: u64,
    processor_count: u32,
    interface: Option<String>,
    driver: Option<String>,
    /// The agent's version.
    agent: String,
    /// The release of phase 1's kernel.
    kernel: String,
    /// Its maker and what he calls it.
    product: Option<String>,
    serial_number: Option<String>,
    /// What its processor calls itself.
    processor: Option<String>,
    /// Those for which phase 1 has a driver.
    #[schema(max_items = 16)]
    disks: Vec<DiskView>,
    /// Those for which phase 1 has a driver.
    #[schema(max_items = 16)]
    cards: Vec<CardView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct DiskView {
    #[schema(example = "nvme0n1")]
    name: String,
    size_bytes: u64,
    model: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct CardView {
    #[schema(example = "eth0")]
    name: String,
    #[schema(example = "52:54:00:12:34:56")]
    mac: String,
    driver: Option<String>,
    /// Of its link, if it has one and its driver knows.
    mbit_per_s: Option<u32>,
}

impl MachineView {
    fn of(machine: &Machine, hardware: &Hardware) -> Self {
        let disks = hardware.disks.iter().map(|disk| DiskView {
            name: disk.name.clone(),
            size_bytes: disk.len_bytes,
            model: disk.model.clone(),
        });
        let cards = hardware.cards.iter().map(|card| CardView {
            name: card.name.clone(),
            mac: card.mac.to_string(),
            driver: card.driver.clone(),
            mbit_per_s: card.mbit_per_s,
        });
        Self {
            memory_bytes: machine.memory_bytes,
            processor_count: machine.processors,
            interface: machine.interface.clone(),
            driver: machine.driver.clone(),
            agent: machine.agent.clone(),
            kernel: machine.kernel.clone(),
            product: machine.product.clone(),
            serial_number: machine.serial_number.clone(),
            processor: hardware.processor.clone(),
            disks: disks.collect(),
            cards: cards.collect(),
        }
    }
}

/// The fleet, page by page.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "nodes", params(NodesQuery),
    responses(
        (status = 200, body = NodesPage, description = "A page; `Link` names the next one"),
        (status = 304, description = "Nothing has changed since the given `If-None-Match`"),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn nodes(
    State(site): State<Site>,
    headers: HeaderMap,
    query: Result<Query<NodesQuery>, QueryRejection>,
) -> Response<Body> {
    let asked = query.map_err(|error| Problem::bad(error.body_text()));
    let wanted = match asked.and_then(|Query(query)| Wanted::try_from(query)) {
        Ok(wanted) => wanted,
        Err(problem) => return problem.into_response(),
    };
    let fleet = site.0.fleet.lock();
    let (revision, count) = (fleet.revision(), fleet.nodes().count());
    let tag = Tag::new(site.0.about.started.0, revision);
    if tag.is_known(&headers) {
        drop(fleet);
        return reply::tagged(&headers, &tag, || ());
    }
    let matching: Vec<&Summary> =
        fleet.nodes().map(|node| &node.summary).filter(|node| wanted.takes(node)).collect();
    let matching_count = matching.len();
    let first = matching.partition_point(|node| wanted.after.is_some_and(|mac| node.mac <= mac));
    let rest = matching.get(first..).unwrap_or_default();
    let has_more = rest.len() > wanted.limit;
    let macs: Vec<Mac> = rest.iter().take(wanted.limit).map(|node| node.mac).collect();
    drop(fleet);
    let next = macs.last().filter(|_| has_more).map(Mac::to_string);
    let link = next.as_ref().map(|next| wanted.link(next));
    let page = NodesPage { nodes: vec![], matching_count, count, revision, next };
    let mut macs = macs.into_iter();
    // One by one, so that nothing is turned into text under the lock, and who reads slowly has no page in memory. What has
    // changed meanwhile is told as it is, and what is gone not at all.
    let view = move || macs.by_ref().find_map(|mac| view(&site.0.fleet.lock(), mac));
    let mut answer = reply::with_tag(pieces::listing("nodes", &page, view), &tag);
    if let Some(Ok(link)) = link.map(|link| link.parse()) {
        answer.headers_mut().insert(LINK, link);
    }
    answer
}

fn view(fleet: &Fleet, mac: Mac) -> Option<NodeView> {
    fleet.node(mac).map(|node| NodeView::from(&node.summary))
}

/// One node, with its timeline.
#[utoipa::path(
    get, path = "/v1/nodes/{node}", tag = "nodes",
    params(("node" = String, Path, description = "Its Ethernet address, or its name")),
    responses(
        (status = 200, body = NodePage),
        (status = 304, description = "Nothing has changed since the given `If-None-Match`"),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 404, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn node(
    State(site): State<Site>,
    headers: HeaderMap,
    Path(which): Path<String>,
) -> Response<Body> {
    let found = site.0.fleet.lock().find(&which).cloned();
    let Some(node) = found else {
        let shown = fleet::printable(&which, TEXT_LEN_MAX);
        return Problem::missing(format!("no node `{shown}` is known")).into_response();
    };
    let now = UnixMs::now();
    // What it waits for changes as time passes: an answer is good for five seconds.
    let live = site.live();
    let decided = Decided {
        assigned: live.script.boots.decided(node.summary.mac),
        next_boot: site.0.next.waiting(node.summary.mac),
    };
    let state = site.0.about.started.0 ^ (now.0 / 5_000) ^ live.offer.serial;
    let tag = Tag::new(state, node.summary.revision);
    reply::tagged(&headers, &tag, || page(&node, decided, now))
}

/// What a question is about, checked.
struct Wanted {
    query: NodesQuery,
    text: Option<String>,
    limit: usize,
    after: Option<Mac>,
}

impl TryFrom<NodesQuery> for Wanted {
    type Error = Problem;

    fn try_from(query: NodesQuery) -> Result<Self, Problem> {
        let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::bad(format!("limit is 1 to {LIMIT_MAX}")));
        }
        if query.q.as_ref().is_some_and(|text| text.chars().count() > TEXT_LEN_MAX) {
            return Err(Problem::bad(format!("q has {TEXT_LEN_MAX} characters at most")));
        }
        let after = query.after.as_deref().map(str::parse::<Mac>).transpose();
        let after = after.map_err(|error| Problem::bad(format!("after: {error}")))?;
        let text = query.q.as_ref().map(|text| text.to_lowercase());
        Ok(Self { query, text, limit, after })
    }
}

impl Wanted {
    fn takes(&self, node: &Summary) -> bool {
        let NodesQuery { stage, image, known, .. } = &self.query;
        let is_at = stage.as_ref().is_none_or(|wanted| match &node.stage {
            Some(stage) => stage.name() == wanted,
            None => wanted == "none",
        });
        let has_image =
            image.as_ref().is_none_or(|image| node.image().is_some_and(|of| of.as_str() == image));
        let has_text = self.text.as_ref().is_none_or(|text| {
            let name = node.name.as_deref().unwrap_or_default().to_lowercase();
            let address = node.address.map(|address| address.to_string()).unwrap_or_default();
            name.contains(text) || node.mac.to_string().contains(text) || address.contains(text)
        });
        let stands =
            self.query.standing.as_ref().is_none_or(|wanted| node.standing.name() == wanted);
        let is_known = known.is_none_or(|known| node.known == known);
        is_at && has_image && has_text && stands && is_known
    }

    /// The `Link` to the page after `next` (RFC 8288).
    fn link(&self, next: &str) -> String {
        use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
        let NodesQuery { stage, image, known, standing, q, .. } = &self.query;
        let known = known.map(|known| known.to_string());
        let mut url = format!("/v1/nodes?limit={}&after={next}", self.limit);
        let pairs = [
            ("stage", stage),
            ("image", image),
            ("known", &known),
            ("standing", standing),
            ("q", q),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                url.push_str(&format!("&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
            }
        }
        format!("<{url}>; rel=\"next\"")
    }
}

impl From<&Summary> for NodeView {
    fn from(node: &Summary) -> Self {
        let progress = match &node.stage {
            Some(Stage::Downloading(progress)) => Some(ProgressView {
                verified_bytes: progress.verified_bytes,
                total_bytes: progress.total_bytes,
                rate_bytes_per_s: progress.rate_bytes_per_s,
                peer_count: progress.peers,
                is_by_http: progress.http,
            }),
            _ => None,
        };
        let is_failed = matches!(node.stage, Some(Stage::Failed { .. }));
        Self {
            mac: node.mac.to_string(),
            name: node.name.clone(),
            known: node.known,
            standing: node.standing.name(),
            address: node.address.map(|address| address.to_string()),
            firmware: node.firmware.map(status::firmware),
            arch: node.arch.map(arch),
            uuid: node.uuid.clone(),
            stage: node.stage.as_ref().map(Stage::name),
            image: node.image().map(ToString::to_string),
            progress,
            uploaded_bytes: node.uploads,
            since_unix_ms: node.since.0,
            seen_unix_ms: node.seen.0,
            boot_unix_ms: node.boot_began.0,
            boot_count: node.boot_count,
            failure: node.last_failure.as_ref().map(|last| failure(last, is_failed)),
            revision: node.revision,
        }
    }
}

const fn arch(arch: boot::Arch) -> &'static str {
    match arch {
        boot::Arch::X86_64 => "x86_64",
        boot::Arch::Arm64 => "arm64",
        boot::Arch::Unknown => "unknown",
    }
}

fn failure(last: &LastFailure, is_current: bool) -> FailureView {
    FailureView {
        code: last.failure.code(),
        what: last.failure.what(),
        reason: last.reason.clone(),
        cure: last.failure.cure(),
        unix_ms: last.at.0,
        is_current,
    }
}

/// What is decided for a node.
struct Decided {
    assigned: Option<NextBoot>,
    next_boot: Option<NextBoot>,
}

impl From<NextBoot> for BootView {
    fn from(boot: NextBoot) -> Self {
        let image = match boot {
            NextBoot::Image(image) => Some(image.to_string()),
            NextBoot::Disk => None,
        };
        Self { image }
    }
}

fn page(node: &Node, decided: Decided, now: UnixMs) -> NodePage {
    let fleet::Why { headline, waits_for, is_late, cure } = fleet::why(&node.summary, now);
    let machine =
        node.summary.machine.as_ref().map(|machine| MachineView::of(machine, &node.hardware));
    let boots = node.past.iter().rev().map(|boot| PastBootView {
        unix_ms: boot.began.0,
        took_ms: boot.took_ms,
        stage: boot.stage.clone(),
        image: boot.image.as_ref().map(ToString::to_string),
        failure: boot.failure.map(boot::Failure::code),
        timeline: steps(fleet::durations(&boot.steps)),
    });
    let events = node.events.iter().rev().map(|event| EventView {
        unix_ms: event.at.0,
        text: event.text.clone(),
        count: event.count,
    });
    NodePage {
        node: NodeView::from(&node.summary),
        why: WhyView { headline, waits_for, is_late, cure },
        timeline: steps(fleet::durations(&node.steps)),
        boots: boots.collect(),
        events: events.collect(),
        log: node.log.iter().cloned().collect(),
        machine,
        assigned: decided.assigned.map(BootView::from),
        next_boot: decided.next_boot.map(BootView::from),
        is_in_reach: node.boot_in_reach(now, SILENT_MS).is_some(),
        hearsay: node.heard.as_ref().map(|heard| HearsayView {
            unix_ms: heard.at.0,
            text: heard.sentence(),
            count: heard.count,
        }),
    }
}

fn steps(steps: Vec<(Step, Option<u64>)>) -> Vec<StepView> {
    let view = |(step, took_ms): (Step, Option<u64>)| StepView {
        stage: step.stage.as_str(),
        unix_ms: step.at.0,
        took_ms,
        failure: step.failure.map(boot::Failure::code),
    };
    steps.into_iter().map(view).collect()
}
