//! What a kernel module says of itself: reading never panics, and what was read can be written into
//! the tables of modules, a line each.
#![no_main]

use image::phase1::modinfo::{FIELDS_MAX, ModInfo};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    for info in [ModInfo::decode(file), ModInfo::decode_section(file)].into_iter().flatten() {
        assert!(info.aliases.len() <= FIELDS_MAX);
        let words = info.aliases.iter().chain(&info.soft_pre).chain(&info.soft_post);
        for word in words {
            assert!(!word.is_empty() && !word.contains(|c: char| c.is_ascii_whitespace()), "{word:?}");
        }
    }
});
