//! Who may look at the dashboard, `/v1` and the metrics: as the configuration says. What nodes need
//! to boot is never behind this.

use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{Response, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;

use super::serve::Source;
use super::v1::Problem;
use super::{Site, dashboard, metrics, v1};
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
    Extension(Source(peer)): Extension<Source>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let about = &site.0.about;
    match may_look(about.access, about.address, peer) {
        true => next.run(request).await,
        false => {
            let text = "only this server itself may look at this: see dashboard.access in \
                        Boottorrent.yaml";
            Problem::new(StatusCode::FORBIDDEN, text).into_response()
        }
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
