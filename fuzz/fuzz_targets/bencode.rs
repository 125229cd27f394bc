//! Whatever decodes has one encoding, the one it came from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use torrent::bencode::{Encoder, decode};

fuzz_target!(|input: &[u8]| {
    if let Ok(value) = decode(input) {
        let mut again = Encoder::new();
        value.encode(&mut again);
        assert_eq!(again.finish(), input);
    }
});
