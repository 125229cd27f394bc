//! `make PATH OUT [PIECE_LEN]`: a hybrid torrent, for measuring.
use torrent::metainfo::create::{Format, Spec};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let spec = Spec {
        format: Format::Hybrid,
        piece_len: args.get(3).map(|len| len.parse()).transpose()?,
        private: false,
        trackers: vec![],
        web_seeds: vec![],
        comment: None,
        created_by: None,
        creation_date: None,
    };
    let threads = std::thread::available_parallelism()?;
    let bytes = torrent_io::create::create(args[1].as_ref(), spec, threads, &|_, _| ())?;
    std::fs::write(&args[2], bytes)?;
    Ok(())
}
