//! A lab: its key, its images, what its server publishes and what is in the initramfs of its nodes.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use boot::manifest::{Discovery, Menu, Shell, VERSION};
use boot::{Image, LabKey, Loader, Mac, Manifest, PasswordHash};
use tempfile::TempDir;
use torrent::metainfo::Metainfo;
use torrent::metainfo::create::Spec;
use torrent_io::engine::{EngineConfig, Known};
use torrent_io::session::{Place, Prepared, Session, SessionConfig};

use super::server::Server;

pub(crate) struct Lab {
    dir: TempDir,
    key: LabKey,
    pub(crate) server: Server,
    manifest: Manifest,
}

/// The contents of a file, which its name and length decide.
pub(crate) fn bytes(name: &str, len: usize) -> Vec<u8> {
    let seed: usize = name.bytes().map(usize::from).sum();
    (0..len).map(|at| ((at / 7 + seed) % 251) as u8).collect()
}

impl Lab {
    /// No image yet, and nothing published.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = LabKey::from_seed([1; 32]);
        for folder in ["root/etc/boottorrent", "root/boottorrent/torrents", "oss", "saved"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let public = key.public().to_string();
        std::fs::write(dir.path().join("root/etc/boottorrent/lab.pub"), public).unwrap();
        let manifest = Manifest {
            version: VERSION,
            serial: 0,
            menu: Menu {
                default: "debian".parse().unwrap(),
                timeout_s: Some(0),
                shell: Default::default(),
            },
            seed_time_s: 0,
            seed_auto: false,
            keymap: None,
            discovery: Discovery { lsd: false, pex: true },
            images: vec![],
            phase1: vec![],
            booted_upload_limit_bytes_per_s: None,
            assignments: vec![],
        };
        Self { dir, key, server: Server::start(), manifest }
    }

    pub(crate) fn node(&self) -> Mac {
        Mac([2, 0, 0, 0, 0, 1])
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Where the agent writes what it would load.
    pub(crate) fn saved(&self) -> PathBuf {
        self.dir.path().join("saved")
    }

    fn oss(&self) -> PathBuf {
        self.dir.path().join("oss")
    }

    /// Makes an image, in place of one of that name.
    pub(crate) fn add_image(&mut self, name: &str, files: &[(&str, usize)], loader: Loader) {
        let folder = self.oss().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        self.server.remove(&format!("/images/{name}/"));
        for (path, len) in files {
            let file = folder.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, bytes(path, *len)).unwrap();
            self.server.put(&format!("/images/{name}/{path}"), bytes(path, *len));
        }
        let trackers = vec![vec![format!("{}/announce", self.server.url())]];
        let spec = Spec { trackers, ..Spec::default() };
        let torrent =
            torrent_io::create::create(&folder, spec, NonZeroUsize::MIN, &|_, _| {}).unwrap();
        let metainfo = Metainfo::decode(&torrent).unwrap();
        std::fs::write(self.dir.path().join(format!("{name}.torrent")), torrent).unwrap();
        self.manifest.images.retain(|image| image.name.as_str() != name);
        self.manifest.images.push(Image {
            name: name.parse().unwrap(),
            title: name.to_uppercase(),
            description: String::new(),
            password: None,
            len: metainfo.geometry().data_len(),
            infohash: metainfo.info_hash_v2().unwrap().as_bytes().try_into().unwrap(),
            loader,
        });
    }

    /// The lab offers it no more.
    pub(crate) fn remove_image(&mut self, name: &str) {
        self.manifest.images.retain(|image| image.name.as_str() != name);
    }

    pub(crate) fn set_password(&mut self, name: &str, password: &str) {
        let image = self.manifest.images.iter_mut().find(|image| image.name.as_str() == name);
        image.unwrap().password = Some(PasswordHash::of(password, [1; 16]).unwrap());
    }

    pub(crate) fn set_shell(&mut self, shell: Shell) {
        self.manifest.menu.shell = shell;
    }

    pub(crate) fn set_menu_timeout(&mut self, timeout_s: Option<u64>) {
        self.manifest.menu.timeout_s = timeout_s;
    }

    /// Nodes seed as long as anybody downloads.
    pub(crate) fn set_seed_auto(&mut self) {
        self.manifest.seed_auto = true;
    }

    pub(crate) fn set_seed_time(&mut self, seconds: u64) {
        self.manifest.seed_time_s = seconds;
    }

    /// A new manifest, and the torrents as they are.
    pub(crate) fn publish(&mut self) {
        let key = LabKey::from_seed([1; 32]);
        self.publish_with(&key);
    }

    pub(crate) fn publish_with(&mut self, key: &LabKey) {
        self.manifest.serial += 1;
        for image in &self.manifest.images {
            let name = format!("{}.torrent", image.name);
            let torrent = std::fs::read(self.dir.path().join(&name)).unwrap();
            self.server.put(&format!("/torrents/{name}"), torrent);
        }
        let (bytes, signature) = self.manifest.sign(key).unwrap();
        self.server.put("/manifest.sig", signature.to_string().into_bytes());
        self.server.put("/manifest.json", bytes);
        if key.public() == self.key.public() {
            self.server.set_serial(self.manifest.serial);
        }
    }

    /// What a boot program loads beside the initramfs.
    pub(crate) fn copy_to_initramfs(&self) {
        for path in ["manifest.json", "manifest.sig", "torrents/debian.torrent"] {
            let bytes = self.server.get(&format!("/{path}"));
            std::fs::write(self.root().join("boottorrent").join(path), bytes).unwrap();
        }
    }

    /// As [`Self::copy_to_initramfs`], and the server does not have it any more.
    pub(crate) fn move_to_initramfs(&self) {
        self.copy_to_initramfs();
        self.server.remove("/manifest");
        self.server.remove("/torrents/");
    }

    pub(crate) fn flip_in_initramfs(&self, path: &str, at: usize) {
        let path = self.root().join("boottorrent").join(path);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    /// A peer that has all of an image, and that the tracker knows.
    pub(crate) fn seed(&self, name: &str) -> Session {
        let torrent = std::fs::read(self.dir.path().join(format!("{name}.torrent"))).unwrap();
        let metainfo = Metainfo::decode(&torrent).unwrap();
        let config = SessionConfig {
            engine: EngineConfig {
                listen: ([127, 0, 0, 1], 0).into(),
                peer_id: torrent::wire::peer_id(1),
                random_seed: 1,
                upload_limit: None,
                download_limit: None,
                pex: true,
                known: Known::default(),
            },
            lsd: false,
            user_agent: "test".to_owned(),
        };
        let mut session = Session::start(config, |_, _| {}).unwrap();
        session.add(prepared(metainfo, &self.oss()), vec![]);
        self.server.add_peer(session.addr());
        session
    }
}

fn prepared(metainfo: Metainfo, oss: &Path) -> Prepared {
    let place = Place::Seed(oss.to_owned());
    let never = AtomicBool::new(false);
    Prepared::open(metainfo, &place, NonZeroUsize::MIN, &never, &mut |_| {}).unwrap()
}
