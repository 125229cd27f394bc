//! What strangers send to a tracker, and what trackers send to us: nothing may panic, and what is
//! read must be written and read back the same.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use torrent::Time;
use torrent::tracker::http::{
    decode_announce_query, decode_announce_response, decode_scrape_query, decode_scrape_response,
    encode_announce_response, encode_announce_url, encode_scrape_response,
};
use torrent::tracker::udp::{Family, PACKET_LEN_MAX, Request, Response};
use torrent::tracker::{RESPONSE_PEERS_MAX, Registry};

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 5 {
        0 => queries(bytes),
        1 => responses(bytes),
        2 => requests_udp(bytes),
        3 => responses_udp(bytes),
        _ => registry(bytes),
    }
});

fn queries(bytes: &[u8]) {
    let _ = decode_scrape_query(bytes);
    if let Ok(query) = decode_announce_query(bytes) {
        let url = encode_announce_url("http://t/announce", &query.request, None);
        let (_, again) = url.split_once('?').expect("it has a query");
        let again = decode_announce_query(again.as_bytes()).expect("ours is good");
        assert_eq!(again.request, query.request);
    }
}

fn responses(bytes: &[u8]) {
    if let Ok(response) = decode_announce_response(bytes) {
        assert!(response.peers.len() <= RESPONSE_PEERS_MAX);
        let again = decode_announce_response(&encode_announce_response(&response, false, false));
        assert_eq!(again.as_ref(), Ok(&response));
    }
    if let Ok(files) = decode_scrape_response(bytes) {
        let again = decode_scrape_response(&encode_scrape_response(&files));
        assert!(again.is_ok_and(|again| again.len() <= files.len()));
    }
}

fn requests_udp(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        let again = request.encode();
        assert!(again.len() <= PACKET_LEN_MAX);
        assert!(Request::decode(&again).is_ok());
    }
}

fn responses_udp(bytes: &[u8]) {
    for family in [Family::V4, Family::V6] {
        if let Ok(response) = Response::decode(bytes, family) {
            let again = response.encode(family);
            assert!(again.len() <= PACKET_LEN_MAX);
            let again = Response::decode(&again, family).expect("ours is good");
            assert_eq!(again.transaction(), response.transaction());
        }
    }
}

/// Packets of 98 bytes as announces of a few peers, with sweeps between.
fn registry(bytes: &[u8]) {
    let mut registry = Registry::new(1);
    let mut now = Time::ZERO;
    for packet in bytes.chunks(102) {
        let Some((control, packet)) = packet.split_first_chunk::<4>() else {
            return;
        };
        now += Duration::from_secs(control[0].into());
        if control[1] % 2 == 0 {
            registry.sweep(now);
        }
        if let Ok(Request::Announce { request, .. }) = Request::decode(packet) {
            let addr = ([10, 0, 0, control[2] % 16], u16::from(control[3] % 4) + 1);
            let response = registry
                .announce(now, addr.into(), &request)
                .expect("limits are far away");
            assert!(response.peers.len() <= 32);
            assert!(response.peers.iter().all(|peer| peer.addr != addr.into()));
        }
    }
}
