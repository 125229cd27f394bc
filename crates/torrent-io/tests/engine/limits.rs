//! Limits of bytes a second hold end to end.

use std::time::Instant;

use torrent::metainfo::create::Format;
use torrent_io::engine::EngineConfig;

use super::node::{Content, config};

const MIB: u64 = 1 << 20;

/// The limit: 2 MiB then take nearly a second, where without one they take some milliseconds.
const LIMIT: u64 = 2 * MIB;

/// Bytes that may pass at once: a tenth of a second's worth, and a block that goes into debt.
const BURST: u64 = LIMIT / 10 + 16_384;

/// Whatever the engines do, what has arrived cannot be more than what the limit lets pass in the time
/// since before they began: true on a machine of any speed. That all arrives in the end shows that
/// nothing is forgotten.
fn check(seed: EngineConfig, leech: EngineConfig) {
    let start = Instant::now();
    let content = Content::file(Format::Hybrid, 65_536, 2 * MIB as usize);
    let seed = content.seed_with(seed);
    let leech = content.leech_with(leech);
    leech.knows([seed.addr()]);
    leech.completes(&content);
    let allowed = BURST as f64 + LIMIT as f64 * start.elapsed().as_secs_f64();
    assert!((2 * MIB) as f64 <= allowed, "{allowed} bytes may have passed, and 2 MiB have");
}

#[test]
fn upload_stays_within_its_limit() {
    check(EngineConfig { upload_limit: Some(LIMIT), ..config() }, config());
}

#[test]
fn download_stays_within_its_limit() {
    check(config(), EngineConfig { download_limit: Some(LIMIT), ..config() });
}
