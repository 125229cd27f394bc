//! How fast one thread hashes, stores and reads back, in GiB/s: `cargo run --release -p torrent-io
//! --example storage_speed`. Says whether the processor's SHA instructions are used (SHA-256 at
//! well over 1 GiB/s) and what storage adds to the cost of a byte.

use std::time::Instant;

use torrent::{BLOCK_LEN, Block};
use torrent_io::hash::{leaf_hashes, sha1};
use torrent_io::storage::{Allocation, FileSpan, Layout, Storage};

const LEN: u32 = 256 << 20;
const PIECE_LEN: u32 = 1 << 20;

fn time(name: &str, work: impl FnOnce()) {
    let start = Instant::now();
    work();
    let gib = f64::from(LEN) / f64::from(1u32 << 30);
    println!("{name:32} {:6.2} GiB/s", gib / start.elapsed().as_secs_f64());
}

fn block(piece: u32, offset: u32, len: u32) -> Block {
    Block { piece, offset, len }
}

fn storage(name: &str, storage: &Storage) {
    let mut data = vec![7; BLOCK_LEN as usize];
    let each = |work: &mut dyn FnMut(Block)| {
        for start in (0..LEN).step_by(BLOCK_LEN as usize) {
            work(block(start / PIECE_LEN, start % PIECE_LEN, BLOCK_LEN));
        }
    };
    time(&format!("{name}: write blocks"), || {
        each(&mut |block| storage.write_block(block, &data).expect("there is room"));
    });
    let run = vec![&data[..]; 16];
    time(&format!("{name}: write again, runs of 16"), || {
        for start in (0..LEN).step_by(16 * BLOCK_LEN as usize) {
            let first = block(start / PIECE_LEN, start % PIECE_LEN, BLOCK_LEN);
            storage.write_run(first, &run).expect("there is room");
        }
    });
    storage.complete().expect("nobody changed it");
    time(&format!("{name}: read blocks"), || {
        each(&mut |block| storage.read_block(block, &mut data).expect("it is there"));
    });
}

fn main() {
    let data = vec![7; LEN as usize];
    time("SHA-256 leaves", || drop(leaf_hashes(&data)));
    time("SHA-1", || {
        let _ = sha1(&data);
    });
    drop(data);
    let span = FileSpan { path: "speed".into(), start: 0, len: u64::from(LEN), padding: false };
    let layout = Layout::new(PIECE_LEN, vec![span]).expect("one file fits");
    storage("memory", &Storage::memory(layout.clone()).expect("there is memory"));
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    let files = Storage::download(dir.path(), layout, "speed", &[0; 20], Allocation::Sparse);
    storage("files", &files.expect("there is space").0);
}
