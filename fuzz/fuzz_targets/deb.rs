//! A kernel package from anywhere: reading never panics, takes no more memory than its limits, and
//! names no file that would land outside of where packages are unpacked.
#![no_main]

use std::io::{Read, copy, sink};

use image::phase1::deb::{DebError, for_each_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|package: &[u8]| {
    let _ = for_each_file(package, |path: &str, len: u64, bytes: &mut dyn Read| {
        assert!(!path.starts_with('/') && !path.split('/').any(|name| name == ".."), "{path}");
        let read = copy(bytes, &mut sink())?;
        assert!(read <= len);
        Ok::<_, DebError>(())
    });
});
