//! Asking servers: one that answers, and all that can be in the way.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::http::{Door, Keeper, Tls, serve};
use crate::lab::settings::TlsSettings;
use crate::services::control::Control;
use crate::state::FOLDER;

fn router() -> Router {
    let greet = |headers: HeaderMap, body: String| async move {
        let field = |name| headers.get(name).and_then(|it| it.to_str().ok()).unwrap_or_default();
        json!([field(AUTHORIZATION.as_str()), field(CONTENT_TYPE.as_str()), body]).to_string()
    };
    let problem = || async {
        let problem = json!({"type": "about:blank", "detail": "no \u{1b}[2Jdance"}).to_string();
        (StatusCode::CONFLICT, problem)
    };
    Router::new()
        .route("/greet", post(greet))
        .route("/problem", get(problem))
        .route("/odd", get(|| async { "<html>" }))
        .route("/nothing", post(|| async { StatusCode::NO_CONTENT }))
        .route("/secret", get(|| async { (StatusCode::UNAUTHORIZED, "who are you?") }))
}

fn serve_lab(lab: &Path) -> tokio::task::JoinHandle<()> {
    fs::create_dir_all(lab.join(FOLDER)).unwrap();
    let control = Control::open(lab).unwrap();
    tokio::spawn(async move { control.serve(router()).await })
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test]
async fn a_command_gets_its_answer_however_deep_the_lab_is() {
    let temp = tempfile::tempdir().unwrap();
    for lab in [temp.path().to_owned(), temp.path().join("x".repeat(120))] {
        let serving = serve_lab(&lab);
        let client = Client::of_lab(lab);
        off_thread(move || {
            let body = json!({"x": 1});
            let answer: Value = client.post("/greet", Some(&body)).unwrap();
            assert_eq!(answer, json!(["", "application/json", "{\"x\":1}"]));
            assert_eq!(client.post::<Value>("/nothing", None).unwrap(), Value::Null);
        })
        .await;
        serving.abort();
    }
}

#[tokio::test]
async fn what_a_server_refuses_is_said_in_its_words_which_steer_no_terminal() {
    let temp = tempfile::tempdir().unwrap();
    let _serving = serve_lab(temp.path());
    let client = Client::of_lab(temp.path().to_owned());
    off_thread(move || {
        let ask = |path: &str| client.get::<Value>(path).unwrap_err();
        assert!(matches!(ask("/problem"), ClientError::Refused(text) if text == "no [2Jdance"));
        assert!(matches!(ask("/odd"), ClientError::Answer { .. }));
        assert!(matches!(ask("/secret"), ClientError::Refused(text) if text == "who are you?"));
        let missing = ask("/missing").to_string();
        assert!(missing.contains("404"), "{missing}");
    })
    .await;
}

#[tokio::test]
async fn where_no_server_runs_that_is_said() {
    let temp = tempfile::tempdir().unwrap();
    let client = Client::of_lab(temp.path().to_owned());
    let ask = move || {
        let client = client.clone();
        off_thread(move || client.get::<Value>("/problem").unwrap_err())
    };
    assert!(matches!(ask().await, ClientError::NotRunning { .. }));
    // As one that has not come that far.
    let lock = Lock::take(temp.path()).unwrap();
    assert!(matches!(ask().await, ClientError::Starting { pid: Some(_) }));
    drop(lock);
    // As a server that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(control::path(temp.path())).unwrap());
    assert!(matches!(ask().await, ClientError::NotRunning { .. }));
    serve_lab(temp.path()).abort();
}

async fn listen(door: Door) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, door, router(), Keeper::for_tests()));
    address
}

fn greet(base: String, trust: Trust) -> Result<Value, ClientError> {
    let client = Client::remote(base.parse().unwrap(), Some("t0ken".to_owned()), trust);
    client.post("/greet", None)
}

#[tokio::test]
async fn a_server_elsewhere_is_asked_with_its_token() {
    let address = listen(Door::Plain).await;
    let answer = off_thread(move || greet(format!("http://{address}"), Trust::System)).await;
    assert_eq!(answer.unwrap(), json!(["Bearer t0ken", "", ""]));
}

#[tokio::test]
async fn who_has_no_token_is_told_where_it_is() {
    let address = listen(Door::Plain).await;
    let client = Client::remote(format!("http://{address}").parse().unwrap(), None, Trust::System);
    let refused = off_thread(move || client.get::<Value>("/secret").unwrap_err()).await;
    assert!(matches!(refused, ClientError::NoToken), "{refused}");
}

#[tokio::test]
async fn a_certificate_is_believed_if_it_is_said_to_be() {
    let settings = TlsSettings::for_tests();
    let address = listen(Door::Tls(Tls::load(&settings).unwrap())).await;
    let base = format!("https://localhost:{}", address.port());
    let of_system = base.clone();
    let refused = off_thread(move || greet(of_system, Trust::System)).await.unwrap_err();
    assert!(matches!(refused, ClientError::Io { .. }), "{refused}");
    let trust = Trust::File(settings.certificate.clone());
    let answer = off_thread(move || greet(base, trust)).await;
    assert_eq!(answer.unwrap()[0], "Bearer t0ken");
    let base = format!("https://127.0.0.2:{}", address.port());
    let other = off_thread(move || greet(base, Trust::File(settings.certificate.clone()))).await;
    assert!(other.is_err(), "a certificate of another name was believed");
}
