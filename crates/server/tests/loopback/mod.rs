//! A lab on loopback with high ports, DHCP and TFTP off, for the tests that run the built program.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use boot::LabKey;

/// A port that nobody has.
pub(crate) fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A lab with one image, and a phase 1 that is none.
pub(crate) struct Lab {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) http: u16,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let lab = Self { temp: tempfile::tempdir().unwrap(), http: port() };
        let key = LabKey::from_seed([7; 32]);
        lab.write("keys/lab.key", &key.to_secret_text());
        lab.write("keys/lab.pub", &key.public().to_string());
        fs::set_permissions(lab.path("keys/lab.key"), fs::Permissions::from_mode(0o600)).unwrap();
        lab.configure("30s");
        let image = "dispname: Debian\nmethod: kexec\nkernel: vmlinuz\ninitrd: initrd.img\n";
        lab.write("oss/debian/config.yaml", image);
        lab.write("oss/debian/vmlinuz", "the kernel");
        lab.write("oss/debian/initrd.img", &"initrd ".repeat(100_000));
        lab.write("phase1/vmlinuz", "phase 1's kernel");
        lab.write("phase1/initramfs.img", "phase 1's initramfs");
        lab
    }

    /// With a menu that waits for so long.
    pub(crate) fn configure(&self, timeout: &str) {
        let text = format!(
            "version: 1\nserver:\n  interface: lo\n  address: 127.0.0.1\nboot:\n  default: debian\n  \
             timeout: {timeout}\ndhcp:\n  mode: \"off\"\ntftp:\n  enabled: false\nhttp:\n  port: {}\n\
             swarm:\n  tracker_port: {}\n  port: {}\n",
            self.http,
            port(),
            port(),
        );
        self.write("Boottorrent.yaml", &text);
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.temp.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
