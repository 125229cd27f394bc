//! `POST /v1/nodes/{node}/…`: what somebody who is allowed to has done with nodes. Each takes one node,
//! or several: names and Ethernet addresses with commas between them, and `c[001-100]`.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use boot::{ImageName, Mac, nodeset};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{BadBody, NotDone, Problem};
use super::reply;
use super::session::Allowed;
use crate::fleet::printable;
use crate::http::{NextBoot, Site};
use crate::lab::config::is_label;
use crate::node::power::Action;
use crate::services::deeds::{Deed, Done, Refusal, Refused, Told};

/// The most bytes of a set of nodes: as many as a request's line has room for.
const SET_LEN_MAX: usize = 24 << 10;

/// Characters of it that are repeated when it is wrong.
const SHOWN_LEN_MAX: usize = 100;

/// What nodes are to boot: `image` or `disk`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AssignBody {
    /// The name of an image.
    #[schema(example = "debian")]
    image: Option<String>,
    /// Leave them to their own disks.
    #[serde(default)]
    disk: bool,
    /// For their next boot alone, and not in nodes.yaml.
    #[serde(default)]
    next_boot_only: bool,
    /// Words for the command line, in place of those that nodes.yaml has for these nodes; empty for none.
    #[schema(max_length = 2047)]
    cmdline: Option<String>,
}

/// What an unknown node is to be called.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AcceptBody {
    /// Letters, digits and `-`; made of its Ethernet address if it is missing.
    #[schema(example = "c001", max_length = 63)]
    name: Option<String>,
    /// The image that it boots from now on; without one it boots the default, or gets the menu.
    #[schema(example = "debian")]
    image: Option<String>,
}

/// What is to be done with the power of nodes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PowerBody {
    action: Action,
}

/// What was done.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct DoneView {
    /// The Ethernet addresses of the nodes with which it was done.
    pub(crate) nodes: Vec<String>,
    /// Those with which it could not be done.
    pub(crate) refused: Vec<RefusedView>,
    /// What was told of those with which it was done, if that was asked for.
    pub(crate) told: Vec<ToldView>,
    /// In a sentence.
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ToldView {
    node: String,
    /// What the configuration calls it.
    name: Option<String>,
    #[schema(example = "on")]
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RefusedView {
    node: String,
    /// What the configuration calls it.
    name: Option<String>,
    pub(crate) reason: String,
}

impl ToldView {
    /// The node's name, or its Ethernet address.
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.node)
    }
}

impl RefusedView {
    /// The node's name, or its Ethernet address.
    pub(crate) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.node)
    }
}

impl DoneView {
    /// What was done, with nodes called by the names that `name` knows.
    pub(crate) fn of(done: Done, name: impl Fn(Mac) -> Option<String>) -> Self {
        let refused = done.refused.into_iter().map(|Refused { node, reason }| RefusedView {
            node: node.to_string(),
            name: name(node),
            reason,
        });
        let told = done.told.into_iter().map(|Told { node, text }| ToldView {
            node: node.to_string(),
            name: name(node),
            text,
        });
        Self {
            refused: refused.collect(),
            told: told.collect(),
            nodes: done.nodes.iter().map(Mac::to_string).collect(),
            text: done.text,
        }
    }
}

/// Decides what nodes boot, in nodes.yaml, or for their next boot alone.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/assign", tag = "actions", request_body = AssignBody,
    params(("node" = String, Path, description = "A node or several, such as `c001` or `c[001-100]`")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = DoneView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "A node has no name in nodes.yaml, or there is no such image"),
        BadBody,
    )
)]
pub(super) async fn assign(
    State(site): State<Site>,
    allowed: Allowed,
    Path(which): Path<String>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let nodes = nodes(&site, &which)?;
    let AssignBody { image, disk, next_boot_only, cmdline } = reply::body(request).await?;
    let boot = match (image, disk) {
        (Some(image), false) => NextBoot::Image(parse_image(&image)?),
        (None, true) => NextBoot::Disk,
        _ => return Err(Problem::bad("say what to boot: either `image` or `disk`")),
    };
    let deed = match (next_boot_only, cmdline) {
        (true, Some(_)) => {
            return Err(Problem::bad("cmdline is not for the next boot alone: leave one away"));
        }
        (true, None) => {
            has_image(&site, &boot)?;
            Deed::AssignOnce { nodes, boot }
        }
        (false, cmdline) => {
            if cmdline.as_ref().is_some_and(|text| text.contains(|c: char| c.is_control())) {
                return Err(Problem::bad("cmdline is one line, without control characters"));
            }
            Deed::Assign { nodes, boot, cmdline }
        }
    };
    perform(&site, &allowed, deed).await
}

/// Takes back what is assigned to nodes: they boot their group's image, or get the menu.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/unassign", tag = "actions",
    params(("node" = String, Path, description = "A node or several, such as `c001` or `c[001-100]`")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = DoneView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn unassign(
    State(site): State<Site>,
    allowed: Allowed,
    Path(which): Path<String>,
) -> Result<Response<Body>, Problem> {
    let nodes = nodes(&site, &which)?;
    perform(&site, &allowed, Deed::Unassign { nodes }).await
}

/// Switches nodes on through their network cards (wake-on-LAN).
#[utoipa::path(
    post, path = "/v1/nodes/{node}/wake", tag = "actions",
    params(("node" = String, Path, description = "A node or several, such as `c001` or `c[001-100]`")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = DoneView),
        NotDone,
    )
)]
pub(super) async fn wake(
    State(site): State<Site>,
    allowed: Allowed,
    Path(which): Path<String>,
) -> Result<Response<Body>, Problem> {
    let nodes = nodes(&site, &which)?;
    perform(&site, &allowed, Deed::Wake { nodes }).await
}

/// Switches nodes on or off, or asks whether they are on, by the lab's hook. It may take as long as that:
/// `power.timeout` for every 32 nodes.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/power", tag = "actions", request_body = PowerBody,
    params(("node" = String, Path, description = "A node or several, such as `c001` or `c[001-100]`")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = DoneView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "The lab has no hook"),
        BadBody,
    )
)]
pub(super) async fn power(
    State(site): State<Site>,
    allowed: Allowed,
    Path(which): Path<String>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let nodes = nodes(&site, &which)?;
    let PowerBody { action } = reply::body(request).await?;
    perform(&site, &allowed, Deed::Power { nodes, action }).await
}

/// Has nodes start anew: phase 1 at once, a system in its own way, if a process of BootTorrent runs
/// under it (`livenet`, `nfs`). They obey the signature of the lab's key alone.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/reboot", tag = "actions",
    params(("node" = String, Path, description = "A node or several, such as `c001` or `c[001-100]`")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = DoneView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "Nothing of BootTorrent runs on any of them"),
    )
)]
pub(super) async fn reboot(
    State(site): State<Site>,
    allowed: Allowed,
    Path(which): Path<String>,
) -> Result<Response<Body>, Problem> {
    let nodes = nodes(&site, &which)?;
    perform(&site, &allowed, Deed::Reboot { nodes }).await
}

/// Takes a node that nodes.yaml does not name into it.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/accept", tag = "actions", request_body = AcceptBody,
    params(("node" = String, Path, description = "Its Ethernet address")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = DoneView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "It has a name already, or another has this one"),
        BadBody,
    )
)]
pub(super) async fn accept(
    State(site): State<Site>,
    allowed: Allowed,
    Path(which): Path<String>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let nodes = nodes(&site, &which)?;
    let [node] = nodes[..] else {
        return Err(Problem::bad("accept one node at a time: each gets a name of its own"));
    };
    let AcceptBody { name, image } = reply::body_or_none(request).await?.unwrap_or_default();
    if name.as_deref().is_some_and(|name| !is_label(name)) {
        return Err(Problem::bad("name has letters, digits and -, 63 at most"));
    }
    let image = image.as_deref().map(parse_image).transpose()?;
    perform(&site, &allowed, Deed::Accept { node, name, image }).await
}

/// Leaves nodes alone that nodes.yaml does not name: they get no answer from now on, and are asked about
/// no more.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/ignore", tag = "actions",
    params(("node" = String, Path, description = "Ethernet addresses with commas between them")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = DoneView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "One of them is named in nodes.yaml"),
    )
)]
pub(super) async fn ignore(
    State(site): State<Site>,
    allowed: Allowed,
    Path(which): Path<String>,
) -> Result<Response<Body>, Problem> {
    let nodes = nodes(&site, &which)?;
    perform(&site, &allowed, Deed::Ignore { nodes }).await
}

fn parse_image(image: &str) -> Result<ImageName, Problem> {
    image.parse().map_err(|error| Problem::bad(format!("image: {error}")))
}

/// Has it done, and says in the log for whom.
///
/// # Errors
/// If it is refused.
pub(super) async fn done(site: &Site, allowed: &Allowed, deed: Deed) -> Result<Done, Problem> {
    let done = (site.0.about.perform)(deed).await.map_err(|refusal| match refusal {
        Refusal::Missing(text) => Problem::missing(text),
        Refusal::Conflict(text) => Problem::new(StatusCode::CONFLICT, text),
        Refusal::Failed(text) => {
            tracing::error!(target: "HTTP", "{text}");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    })?;
    tracing::info!(target: "HTTP", "{} has it done: {}", allowed.0, done.text);
    Ok(done)
}

async fn perform(site: &Site, allowed: &Allowed, deed: Deed) -> Result<Response<Body>, Problem> {
    let done = done(site, allowed, deed).await?;
    let fleet = site.0.fleet.lock();
    let view = DoneView::of(done, |mac| fleet.node(mac)?.summary.name.clone());
    drop(fleet);
    Ok(reply::json(&view))
}

/// Names are only looked for in nodes.yaml when it is written; what is for the next boot alone is not.
fn has_image(site: &Site, boot: &NextBoot) -> Result<(), Problem> {
    let NextBoot::Image(image) = boot else { return Ok(()) };
    match (site.0.about.status)().images.iter().any(|known| known.name == *image) {
        true => Ok(()),
        false => {
            let text = format!("there is no image `{image}`: see /v1/images");
            Err(Problem::new(StatusCode::CONFLICT, text))
        }
    }
}

/// The nodes that a path names, each once; all of them are known.
fn nodes(site: &Site, which: &str) -> Result<Vec<Mac>, Problem> {
    if which.len() > SET_LEN_MAX {
        return Err(Problem::bad(format!("a set of nodes has {SET_LEN_MAX} bytes at most")));
    }
    let names = nodeset::expand(which).map_err(|error| {
        let error = printable(&error.to_string(), SHOWN_LEN_MAX);
        Problem::bad(format!("this is no set of nodes: {error}"))
    })?;
    let fleet = site.0.fleet.lock();
    let known: BTreeMap<&str, Mac> = fleet
        .nodes()
        .filter_map(|node| Some((node.summary.name.as_deref()?, node.summary.mac)))
        .collect();
    let (mut seen, mut macs, mut unknown) = (BTreeSet::new(), vec![], vec![]);
    for name in &names {
        let mac = match name.parse::<Mac>() {
            Ok(mac) => fleet.node(mac).map(|_| mac),
            Err(_) => known.get(name.as_str()).copied(),
        };
        match mac {
            Some(mac) if seen.insert(mac) => macs.push(mac),
            Some(_) => {}
            None => unknown.push(name.as_str()),
        }
    }
    if unknown.is_empty() {
        return Ok(macs);
    }
    let shown = printable(&nodeset::fold(unknown), SHOWN_LEN_MAX);
    Err(Problem::missing(format!("no node `{shown}` is known")))
}

#[cfg(test)]
mod tests;
