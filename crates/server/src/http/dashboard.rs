//! The dashboard: pages that are part of the program, made of HTML, CSS and JavaScript modules as
//! they are written, without a build. They ask nobody but this server (`/v1`).
//!
//! **Strangers' texts.** Names, reasons and logs come from the network. The pages put them in as text;
//! and should one of them ever be taken for markup, [`POLICY`] lets no script run that is not one of
//! these files.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Response};
use axum::middleware::{Next, from_fn};
use axum::routing::get;

use super::{Served, Site};

/// What the pages may do: load what lies beside them, and ask this server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($path:literal, $kind:expr, $file:literal;)*) => {
        &[$(($path, $kind, include_str!(concat!("dashboard/", $file)))),*]
    };
}

const FILES: &[(&str, &str, &str)] = files! {
    "/", "text/html; charset=utf-8", "index.html";
    "/dashboard/style.css", "text/css; charset=utf-8", "style.css";
    "/dashboard/icon.svg", "image/svg+xml", "icon.svg";
    "/dashboard/app.js", SCRIPT, "app.js";
    "/dashboard/state.js", SCRIPT, "state.js";
    "/dashboard/words.js", SCRIPT, "words.js";
    "/dashboard/dom.js", SCRIPT, "dom.js";
    "/dashboard/session.js", SCRIPT, "session.js";
    "/dashboard/actions.js", SCRIPT, "actions.js";
    "/dashboard/fleet.js", SCRIPT, "fleet.js";
    "/dashboard/node.js", SCRIPT, "node.js";
    "/dashboard/images.js", SCRIPT, "images.js";
    "/dashboard/pages.js", SCRIPT, "pages.js";
    "/dashboard/chart.js", SCRIPT, "chart.js";
};

pub(super) fn routes() -> Router<Site> {
    let mut routes = Router::new();
    for (path, kind, text) in FILES {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let file = Served::memory(*text, &format!("{:x}", hasher.finish()), kind);
        let answer = async move |State(site): State<Site>, request: Request| {
            file.clone().answer(request.method(), request.headers(), &site.0.counters.sent)
        };
        routes = routes.route(path, get(answer));
    }
    routes.layer(from_fn(guarded))
}

async fn guarded(request: Request, next: Next) -> Response<Body> {
    let mut answer = next.run(request).await;
    let fields = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // After an update the pages are those of the new server.
        (CACHE_CONTROL, "no-cache"),
    ];
    for (name, value) in fields {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_have_no_way_to_run_what_is_not_theirs() {
        for (path, _, text) in FILES {
            let forbidden =
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("];
            for word in forbidden.into_iter().filter(|_| !path.ends_with("dom.js")) {
                assert!(!text.contains(word), "{path}: {word}");
            }
            let is_away = |word: &&str| !word.contains("www.w3.org/2000/svg");
            let away =
                text.split(['"', '\'', ' ']).filter(|word| word.starts_with("http")).find(is_away);
            assert_eq!(away, None, "{path} asks somebody else");
        }
        assert!(!FILES[0].2.contains("style=") && !FILES[0].2.contains("onclick"));
    }

    #[test]
    fn each_file_that_the_pages_name_is_there() {
        for (path, _, text) in FILES {
            let names = text
                .split('"')
                .filter(|word| word.starts_with("./") || word.starts_with("/dashboard/"));
            for name in names {
                let name = name.replace("./", "/dashboard/");
                assert!(FILES.iter().any(|(path, ..)| *path == name), "{path}: {name}");
            }
        }
    }
}
