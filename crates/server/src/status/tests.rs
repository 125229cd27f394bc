//! What people read.

use boot::stage::Progress;
use serde_json::json;

use super::*;
use crate::fleet::Summary;
use crate::services::status::{ImageStatus, NodeCounts, ServiceStatus, Status};

fn node(last: u8, name: Option<&str>, stage: Option<Stage>) -> Summary {
    let value = json!({
        "mac": format!("52:54:00:00:00:{last:02x}"),
        "name": name,
        "address": format!("10.0.0.{last}"),
        "firmware": "bios",
        "since_unix_ms": 1_000,
    });
    Summary { stage, ..serde_json::from_value(value).unwrap() }
}

fn downloading(verified_bytes: u64) -> Stage {
    Stage::Downloading(Progress {
        image: "debian".parse().unwrap(),
        verified_bytes,
        total_bytes: 100,
        rate_bytes_per_s: 12_300_000,
        peers: 4,
        uploaded_bytes: 0,
        http: false,
    })
}

fn failed() -> Stage {
    Stage::Failed {
        failure: Failure::NotEnoughMemory,
        reason: "300 MB are missing".to_owned(),
        retry_in_s: 30,
    }
}

fn report(nodes: Vec<Summary>) -> Report {
    let image = ImageStatus {
        name: "debian".parse().unwrap(),
        title: "Debian 12".to_owned(),
        len_bytes: 300_000_000,
        infohash: String::new(),
        is_default: true,
    };
    let service = ServiceStatus {
        name: "http".to_owned(),
        state: "running".to_owned(),
        counts: json!({"request_count": 7, "sent_bytes": 1_200_000_000, "images": []}),
    };
    let status = Status {
        version: "0.1.0".to_owned(),
        lab: "/srv/lab".into(),
        pid: 42,
        started: UnixMs(1_000),
        interface: "eth0".to_owned(),
        address: "10.0.0.1".to_owned(),
        manifest_serial: 7,
        hashing: vec![],
        degraded: vec![],
        images: vec![image],
        services: vec![service],
        nodes: NodeCounts { count: nodes.len(), refused_count: 0, stages: vec![] },
    };
    Report { status, nodes }
}

#[test]
fn the_page_shows_services_images_and_nodes() {
    let nodes = vec![
        node(1, Some("c001"), Some(downloading(45))),
        node(2, None, Some(failed())),
        node(3, Some("c003"), None),
        node(4, Some("c004"), Some(Stage::booted(Some("debian".parse().unwrap())))),
    ];
    let expect = "\
BootTorrent 0.1.0 serves /srv/lab on 10.0.0.1 (eth0), pid 42, up 1 min 5 s

SERVICE  STATE    COUNTS
http     running  7 requests, sent 1.20 GB

IMAGE   SIZE    ON THE WAY  BOOTED  TITLE
debian  300 MB  1           1       Debian 12 (default)

NODE               ADDRESS   FIRMWARE  STAGE        PROGRESS                                    SINCE
c001               10.0.0.1  bios      downloading  debian [####......] 45 % 12.3 MB/s 4 peers  1 min 5 s
52:54:00:00:00:02  10.0.0.2  bios      failed BT43  300 MB are missing; again in 30 s           1 min 5 s
c003               10.0.0.3  bios      -                                                        -
c004               10.0.0.4  bios      booted       debian                                      1 min 5 s
BT43 the image does not fit in memory
     use a smaller image or a node with more memory: the screen says how much is missing
";
    assert_eq!(page(&report(nodes), UnixMs(66_000)), expect);
}

#[test]
fn what_is_followed_is_said_once() {
    let mut known = BTreeMap::new();
    let first = report(vec![node(1, None, Some(Stage::Agent))]);
    assert_eq!(news(&first, &mut known), ["52:54:00:00:00:01 agent"]);
    assert_eq!(news(&first, &mut known), Vec::<String>::new());
    let second = report(vec![node(1, None, Some(downloading(45)))]);
    assert_eq!(news(&second, &mut known), ["52:54:00:00:00:01 downloading debian, 45 %"]);
}

#[test]
fn a_time_is_said_with_two_units() {
    let check = |seconds: u64, expect| assert_eq!(since(UnixMs(seconds * 1000), UnixMs(0)), expect);
    check(0, "0 s");
    check(59, "59 s");
    check(61, "1 min 1 s");
    check(3_725, "1 h 2 min");
    check(90_000, "1 d 1 h");
    assert_eq!(since(UnixMs(0), UnixMs(5)), "0 s");
}
