//! Who may look at the dashboard, `/v1` and the metrics: as the configuration says. What nodes need
//! to boot is never behind this.
//!
//! **Names.** A page of another site can make its own name point at this server (DNS rebinding); its
//! scripts then are, for the browser, of the same site as this server, and could read and command what
//! the person at the browser can. The one thing that gives them away is the name that they ask for, so
//! every request must come for a name or address that is known to be this server's. Nodes and their firmware
//! ask for an address, which no name can be made to point at; what boots by a name of its own needs that in
//! `dashboard.names`, too.

use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::{Authority, PathAndQuery};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;

use super::serve::{Encrypted, Source};
use super::v1::Problem;
use super::{Site, dashboard, metrics, refuse, v1};
use crate::lab::settings::Access;

pub(super) fn guarded(site: &Site) -> Router<Site> {
    Router::new()
        .merge(dashboard::routes())
        .merge(v1::routes())
        .route("/metrics", get(metrics::metrics))
        .route_layer(from_fn_with_state(site.clone(), guard))
}

async fn guard(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let Source::Peer(peer) = source else {
        return next.run(request).await;
    };
    let (live, own) = (site.live(), site.0.about.address);
    if !may_look(live.dashboard.access, own, peer) {
        let text = "only this server itself may look at this: see dashboard.access in \
                    Boottorrent.yaml";
        return Problem::new(StatusCode::FORBIDDEN, text).into_response();
    }
    if !asked_host(&request).is_some_and(|host| is_ours(&host, own, &live.dashboard.names)) {
        let text = "this server does not go by the name that was asked for: use its address, or \
                    write the name under dashboard.names in Boottorrent.yaml";
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let is_encrypted = request.extensions().get::<Encrypted>().is_some();
    match &live.dashboard.tls {
        Some(tls) if !is_encrypted => elsewhere(&request, tls.port),
        _ => next.run(request).await,
    }
}

/// Before everything else: whether this is asked by a page of another site, or for a name that is none of this
/// server's.
pub(super) async fn door(
    State(site): State<Site>,
    Extension(source): Extension<Source>,
    request: Request,
    next: Next,
) -> Response<Body> {
    if source == Source::Owner || WATCHED.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let names = &site.live().dashboard.names;
    // Firmware of HTTP/1.0 names nobody; browsers always do.
    let is_unnamed = !request.headers().contains_key(HOST);
    if !is_unnamed && !asked_host(&request).is_some_and(|host| is_address(&host, names)) {
        let text = "this server does not go by the name that was asked for: use its address, or \
                    write the name under dashboard.names in Boottorrent.yaml";
        return refuse(StatusCode::MISDIRECTED_REQUEST, text);
    }
    let path = request.uri().path();
    if NODES.iter().any(|begin| path.starts_with(begin)) && is_of_a_page(request.headers()) {
        return refuse(StatusCode::FORBIDDEN, "this is for nodes, not for pages of other sites");
    }
    next.run(request).await
}

/// What who watches over services asks, by whatever name: it says nothing and does nothing.
const WATCHED: [&str; 2] = ["/healthz", "/readyz"];

/// What nodes ask and no page does.
const NODES: [&str; 2] = ["/api/", "/boot.ipxe"];

/// Whether a browser sends this for a page (Fetch Standard, `Origin`; Fetch Metadata): nodes send neither
/// field.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let says = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    headers.contains_key(ORIGIN)
        || matches!(says("sec-fetch-site"), Some("cross-site" | "same-site"))
}

/// Whether this is an address, or a name of this server's.
fn is_address(host: &str, names: &[String]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok() || host == "localhost" || names.iter().any(|name| name == host)
}

/// Where this is served encrypted. What came in a request that was not is not looked at.
fn elsewhere(request: &Request, port: u16) -> Response<Body> {
    let is_looking = matches!(*request.method(), Method::GET | Method::HEAD);
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    match asked_host(request) {
        Some(host) if is_looking => {
            Redirect::temporary(&format!("https://{host}:{port}{path}")).into_response()
        }
        _ => {
            let text = format!("this is only served encrypted, on port {port}");
            Problem::new(StatusCode::FORBIDDEN, text).into_response()
        }
    }
}

/// The name or address that a request is for, without the port.
fn asked_host(request: &Request) -> Option<String> {
    let mut fields = request.headers().get_all(HOST).iter();
    let field = fields.next()?.to_str().ok()?;
    let authority: Authority = field.parse().ok()?;
    // Two of them are a request that somebody on the way may read otherwise.
    fields.next().is_none().then(|| authority.host().to_ascii_lowercase())
}

/// Whether a name or address is that of the server with the address `own`.
fn is_ours(host: &str, own: IpAddr, names: &[String]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address == own || address.is_loopback(),
        Err(_) => host == "localhost" || names.iter().any(|name| name == host),
    }
}

/// Whether who comes from `peer` may look at a server that has the address `own`.
fn may_look(access: Access, own: IpAddr, peer: IpAddr) -> bool {
    match access {
        Access::Network => true,
        Access::Localhost => peer.is_loopback() || peer == own,
        Access::Off => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_of_this_server_by_its_own_name_is_answered() {
        let check = |fields: &[&str], expect| {
            let mut request = Request::get("/");
            for field in fields {
                request = request.header(HOST, *field);
            }
            let request = request.body(Body::empty()).unwrap();
            let names = ["boot.example.org".to_owned()];
            let is_ours = asked_host(&request)
                .is_some_and(|host| is_ours(&host, IpAddr::from([10, 0, 0, 1]), &names));
            assert_eq!(is_ours, expect, "{fields:?}");
        };
        check(&["10.0.0.1:8080"], true);
        check(&["10.0.0.1"], true);
        check(&["127.0.0.1:9"], true);
        check(&["[::1]:8080"], true);
        check(&["localhost:8080"], true);
        check(&["Boot.Example.ORG"], true);
        check(&[], false);
        check(&[""], false);
        check(&["10.0.0.2:8080"], false);
        check(&["evil.example.org:8080"], false);
        check(&["localhost.evil.example.org"], false);
        check(&["10.0.0.1.evil.example.org"], false);
        check(&["evil.example.org@10.0.0.1@x"], false);
        check(&["10.0.0.1", "evil.example.org"], false);
    }

    #[test]
    fn who_may_look_is_as_the_configuration_says() {
        let check = |access, peer: [u8; 4], expect| {
            let own = IpAddr::from([10, 0, 0, 1]);
            assert_eq!(may_look(access, own, peer.into()), expect, "{access:?} {peer:?}");
        };
        check(Access::Network, [10, 0, 0, 50], true);
        check(Access::Localhost, [10, 0, 0, 50], false);
        check(Access::Localhost, [10, 0, 0, 1], true);
        check(Access::Localhost, [127, 0, 0, 1], true);
        check(Access::Off, [127, 0, 0, 1], false);
    }
}
