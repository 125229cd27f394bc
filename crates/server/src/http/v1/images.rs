//! `/v1/images`: what nodes can boot, in which versions; and `POST /v1/images/{image}/…`, which has another
//! version take its place.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use boot::ImageName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::actions;
use super::problem::{BadBody, NotDone, Problem};
use super::reply;
use super::session::Allowed;
use crate::http::Site;
use crate::lab::config::is_cmdline;
use crate::services::deeds::{Deed, Done};
use crate::services::versions::Version;

/// The most characters of a title: what a line of a node's menu holds, with room.
const TITLE_LEN_MAX: usize = 100;

/// The images on offer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImagesView {
    images: Vec<ImageView>,
}

#[derive(Debug, Serialize, ToSchema)]
struct ImageView {
    name: String,
    title: String,
    len_bytes: u64,
    /// Of its torrent: another version has another.
    infohash: String,
    /// The number of the version that nodes boot; null for an image that was made by hand.
    version: Option<u32>,
    /// The day on which that was made.
    #[schema(example = "2026-05-17")]
    made: Option<String>,
    /// Versions that can be gone back to, the oldest first.
    kept_versions: Vec<VersionView>,
    /// What a node boots when nobody chooses.
    is_default: bool,
    /// Where its torrent is.
    torrent: String,
    /// Nodes that boot it or have booted it.
    node_count: usize,
    /// What the server's own peer has sent of it since it started.
    uploaded_bytes: u64,
    upload_rate_bytes_per_s: u64,
    /// Peers that are connected to the server's own.
    peer_count: usize,
    /// Older versions that somebody still downloads.
    retired_count: usize,
}

/// A version that was kept.
#[derive(Debug, Serialize, ToSchema)]
struct VersionView {
    number: u32,
    /// The day on which it was made.
    #[schema(example = "2026-05-17")]
    made: Option<String>,
    /// What the menu of nodes showed.
    title: Option<String>,
}

impl From<&Version> for VersionView {
    fn from(version: &Version) -> Self {
        let Version { number, made, title } = version.clone();
        Self { number, made, title }
    }
}

/// Which version to go back to.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackBody {
    /// One of `kept_versions`; the one before if it is missing.
    #[schema(maximum = 4294967295_u32)]
    to: Option<u32>,
}

/// What is to be another in the new version.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBody {
    /// What the menu of nodes shows.
    #[schema(min_length = 1, max_length = 100)]
    title: Option<String>,
    /// Words for its command line.
    #[schema(max_length = 2047)]
    cmdline: Option<String>,
}

/// What nodes boot now.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExchangedView {
    image: String,
    /// The number of the version.
    version: u32,
    /// In a sentence.
    text: String,
}

/// The images on offer.
#[utoipa::path(
    get, path = "/v1/images", tag = "images",
    responses(
        (status = 200, body = ImagesView),
        (status = 403, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn images(State(site): State<Site>) -> Response<Body> {
    let about = site.clone();
    let Ok(versions) = tokio::task::spawn_blocking(move || (about.0.about.versions)()).await else {
        let text = "the versions of images cannot be read: see the log";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    let status = (site.0.about.status)();
    let seeds = (site.0.about.seeding)();
    let mut images: Vec<ImageView> = status
        .images
        .into_iter()
        .map(|image| {
            let all = || seeds.iter().filter(|seed| seed.image == image.name);
            let current = || all().filter(|seed| !seed.is_retired);
            let known = versions.get(&image.name).cloned().unwrap_or_default();
            ImageView {
                torrent: format!("/torrents/{}.torrent", image.name),
                node_count: 0,
                uploaded_bytes: all().map(|seed| seed.uploaded_bytes).sum(),
                upload_rate_bytes_per_s: all().map(|seed| seed.upload_rate_bytes_per_s).sum(),
                peer_count: current().map(|seed| seed.peer_count).sum(),
                retired_count: all().filter(|seed| seed.is_retired).count(),
                name: image.name.to_string(),
                title: image.title,
                len_bytes: image.len_bytes,
                infohash: image.infohash,
                version: known.current.as_ref().map(|version| version.number),
                made: known.current.and_then(|version| version.made),
                kept_versions: known.kept.iter().map(VersionView::from).collect(),
                is_default: image.is_default,
            }
        })
        .collect();
    for node in site.0.fleet.lock().nodes() {
        let of = node.summary.image();
        let image = of.and_then(|of| images.iter_mut().find(|image| image.name == of.as_str()));
        if let Some(image) = image {
            image.node_count += 1;
        }
    }
    reply::json(&ImagesView { images })
}

/// Has nodes boot a version of an image that was kept. What they boot until then is kept in turn; who
/// downloads it finishes. For images that `boottorrent image` has built.
#[utoipa::path(
    post, path = "/v1/images/{image}/rollback", tag = "actions", request_body = Option<RollbackBody>,
    params(("image" = String, Path, description = "The name of an image")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = ExchangedView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "There is no such version, or the image was made by hand or is being built"),
        BadBody,
    )
)]
pub(super) async fn rollback(
    State(site): State<Site>,
    allowed: Allowed,
    Path(image): Path<String>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let image = name(&image)?;
    let RollbackBody { to } = reply::body_or_none(request).await?.unwrap_or_default();
    exchange(&site, &allowed, image.clone(), Deed::Rollback { image, to }).await
}

/// Makes a version of the same files, with another title or other words for the command line, and has
/// nodes boot that.
#[utoipa::path(
    post, path = "/v1/images/{image}/publish", tag = "actions", request_body = Option<PublishBody>,
    params(("image" = String, Path, description = "The name of an image")),
    security(("token" = []), ("session" = [], "csrf" = [])),
    responses(
        (status = 200, body = ExchangedView),
        NotDone,
        (status = 409, body = Problem, content_type = "application/problem+json",
         description = "The image was made by hand or is being built, or another has this title"),
        BadBody,
    )
)]
pub(super) async fn publish(
    State(site): State<Site>,
    allowed: Allowed,
    Path(image): Path<String>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    let image = name(&image)?;
    let PublishBody { title, cmdline } = reply::body_or_none(request).await?.unwrap_or_default();
    if let Some(title) = &title {
        let is_short = (1..=TITLE_LEN_MAX).contains(&title.chars().count());
        if !is_short || title.contains(|c: char| c.is_control()) || title.trim() != title {
            let text =
                format!("title is one line of 1 to {TITLE_LEN_MAX} characters, no space around");
            return Err(Problem::bad(text));
        }
        let images = (site.0.about.status)().images;
        if let Some(other) = images.iter().find(|it| it.title == *title && it.name != image) {
            let text =
                format!("{} is called `{title}` already: the menu needs two names", other.name);
            return Err(Problem::new(StatusCode::CONFLICT, text));
        }
    }
    let is_wrong = |words: &str| words.contains(|c: char| c.is_control()) || !is_cmdline(words);
    if cmdline.as_deref().is_some_and(is_wrong) {
        return Err(Problem::bad(
            "cmdline is one line of words for a kernel, without what iPXE reads as a command",
        ));
    }
    exchange(&site, &allowed, image.clone(), Deed::Publish { image, title, cmdline }).await
}

async fn exchange(
    site: &Site,
    allowed: &Allowed,
    image: ImageName,
    deed: Deed,
) -> Result<Response<Body>, Problem> {
    let Done { version, text, .. } = actions::done(site, allowed, deed).await?;
    let (image, version) = (image.to_string(), version.unwrap_or_default());
    Ok(reply::json(&ExchangedView { image, version, text }))
}

fn name(image: &str) -> Result<ImageName, Problem> {
    image.parse().map_err(|error| Problem::bad(format!("{error}")))
}
