use super::*;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;
use torrent::tracker::Event;
use torrent::tracker::http::encode_failure;

const QUICK: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    total: Duration::from_millis(300),
    udp_first: Duration::from_millis(20),
    udp_sends: 3,
};

/// Time enough for any machine to answer itself.
const PATIENT: Timeouts = Timeouts {
    connect: Duration::from_secs(5),
    total: Duration::from_secs(60),
    udp_first: Duration::from_millis(100),
    udp_sends: 10,
};

fn announce_to(url: String, timeouts: Timeouts) -> Result<AnnounceResponse, TrackerError> {
    let (sender, outcomes) = mpsc::channel();
    let client = TrackerClient::new("test", timeouts, move |outcome| {
        sender.send(outcome).expect("the test waits");
    });
    client.announce(Announce { token: 7, url, request: request(), tracker_id: None });
    let outcome = outcomes.recv().unwrap();
    assert_eq!(outcome.token, 7);
    outcome.result
}

fn request() -> AnnounceRequest {
    AnnounceRequest {
        info_hash: [b'h'; 20],
        peer_id: [b'p'; 20],
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: Some(1),
        event: Event::Started,
        numwant: Some(10),
        key: Some(1),
    }
}

/// An HTTP server for one request, which it returns; the answer is sent as it is.
fn serve(answer: Vec<u8>) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        // The client may have hung up on an answer that is too long.
        let _ = stream.write_all(&answer);
        String::from_utf8(head).unwrap()
    });
    (url, server)
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn http_announce_is_answered() {
    let (url, server) = serve(http("200 OK", b"d8:intervali9e5:peers6:\x0a\0\0\x01\0\x01e"));
    let response = announce_to(url, PATIENT).unwrap();
    assert_eq!(response.interval, Duration::from_secs(9));
    assert_eq!(response.peers[0].addr, "10.0.0.1:1".parse().unwrap());
    let head = server.join().unwrap();
    assert!(head.starts_with("GET /announce?info_hash=hhhhhhhhhhhhhhhhhhhh&peer_id="), "{head}");
    assert!(head.to_lowercase().contains("user-agent: test\r\n"), "{head}");
}

#[test]
fn http_failures_name_the_tracker_and_the_cause() {
    let check = |answer: Vec<u8>, expect: &str| {
        let (url, _) = serve(answer);
        let error = announce_to(url.clone(), PATIENT).unwrap_err();
        let cause = error.source().map(|source| format!(": {source}"));
        let text = format!("{error}{}", cause.unwrap_or_default());
        assert_eq!(text, expect.replace("URL", &url));
    };
    check(http("404 Not Found", b"nothing here"), "tracker URL answers with HTTP status 404");
    check(http("500 No", b"d8:intervali9ee"), "tracker URL answers with HTTP status 500");
    check(
        http("400 Bad Request", &encode_failure("who are you")),
        "tracker URL gives no usable answer: the tracker refuses: who are you",
    );
    check(
        http("200 OK", b"<html>"),
        "tracker URL gives no usable answer: the response is not a bencoded dictionary",
    );
}

#[test]
fn endless_response_is_cut_off() {
    let (url, _) = serve(http("200 OK", &vec![b' '; RESPONSE_LEN_MAX + 1]));
    let error = announce_to(url, PATIENT).unwrap_err();
    let TrackerError::Http { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, ureq::Error::BodyExceedsLimit(_)), "{source:?}");
}

#[test]
fn silent_http_tracker_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    let error = announce_to(url, QUICK).unwrap_err();
    let TrackerError::Http { source, .. } = error else { panic!("{error:?}") };
    assert!(matches!(*source, ureq::Error::Timeout(_)), "{source:?}");
}

#[test]
fn silent_tracker_does_not_hold_up_another() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, _server) = serve(http("200 OK", b"d8:intervali9ee"));
    let (sender, outcomes) = mpsc::channel();
    let client = TrackerClient::new("test", PATIENT, move |outcome| {
        let _ = sender.send(outcome.token);
    });
    let announce = |token, url| Announce { token, url, request: request(), tracker_id: None };
    let silent_url = format!("http://{}/", silent.local_addr().unwrap());
    client.announce(announce(1, silent_url));
    client.announce(announce(2, url));
    assert_eq!(outcomes.recv(), Ok(2));
    assert!(!client.flush(Duration::ZERO), "one is still under way");
    let (stream, _) = silent.accept().unwrap();
    drop(stream);
    assert_eq!(outcomes.recv(), Ok(1));
    assert!(client.flush(Duration::from_secs(60)));
}

#[test]
fn surplus_announces_wait_and_are_all_reported() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let (sender, outcomes) = mpsc::channel();
    let client = TrackerClient::new("test", PATIENT, move |outcome| {
        let _ = sender.send(outcome.token);
    });
    let count = 2 * WORKERS_MAX as u64 + 1;
    for token in 0..count {
        let url = url.clone();
        client.announce(Announce { token, url, request: request(), tracker_id: None });
    }
    assert_eq!(client.shared.lock().queue.len(), WORKERS_MAX + 1);
    for _ in 0..count {
        drop(silent.accept().unwrap());
    }
    let mut tokens: Vec<u64> = outcomes.iter().take(count as usize).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..count));
    assert!(client.flush(Duration::from_secs(60)));
}

/// A UDP tracker that ignores the first `lost` packets, and answers announces with `answer`.
fn serve_udp(lost: usize, answer: fn(u32) -> Response) -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}/announce", socket.local_addr().unwrap());
    thread::spawn(move || {
        let mut room = [0; 2048];
        for count in 0.. {
            let (len, from) = socket.recv_from(&mut room).unwrap();
            if count < lost {
                continue;
            }
            let response = match Request::decode(&room[..len]).unwrap() {
                Request::Connect { transaction } => {
                    Response::Connect { transaction, connection: 5 }
                }
                Request::Announce { connection: 5, transaction, .. } => answer(transaction),
                other => panic!("{other:?}"),
            };
            // Noise first: a packet of another transaction, and none at all.
            let noise =
                Response::Error { transaction: response.transaction() ^ 1, message: String::new() };
            socket.send_to(&noise.encode(Family::V4), from).unwrap();
            socket.send_to(b"x", from).unwrap();
            socket.send_to(&response.encode(Family::V4), from).unwrap();
        }
    });
    url
}

#[test]
fn udp_announce_is_answered_though_packets_get_lost() {
    let url = serve_udp(2, |transaction| Response::Announce {
        transaction,
        response: AnnounceResponse {
            interval: Duration::from_secs(9),
            ..AnnounceResponse::default()
        },
    });
    let response = announce_to(url, PATIENT).unwrap();
    assert_eq!(response.interval, Duration::from_secs(9));
}

#[test]
fn udp_refusal_is_told() {
    let url = serve_udp(0, |transaction| Response::Error { transaction, message: "no".to_owned() });
    let error = announce_to(url, PATIENT).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "the tracker refuses: no");
}

#[test]
fn silent_udp_tracker_is_given_up() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    let error = announce_to(url.clone(), QUICK).unwrap_err();
    assert_eq!(error.to_string(), format!("tracker {url} does not answer"));
    // Asked as often as the timeouts say.
    socket.set_nonblocking(true).unwrap();
    let mut room = [0; 99];
    assert_eq!((0..9).take_while(|_| socket.recv(&mut room).is_ok()).count(), 3);
}

#[test]
fn closed_udp_port_is_an_error_at_once() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("udp://{}", socket.local_addr().unwrap());
    drop(socket);
    let error = announce_to(url, PATIENT).unwrap_err();
    assert!(matches!(error, TrackerError::Udp { .. }), "{error:?}");
}

#[test]
fn foreign_urls_are_refused() {
    for url in ["", "ftp://x/", "udp://host", "udp://host:port", "wss://x", "https://127.0.0.1:1/"]
    {
        if cfg!(feature = "tls") && url.starts_with("https") {
            continue;
        }
        let error = announce_to(url.to_owned(), QUICK).unwrap_err();
        assert!(matches!(error, TrackerError::Url { .. }), "{error:?}");
    }
}
