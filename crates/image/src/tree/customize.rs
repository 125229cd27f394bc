//! What is changed in the tree of every image: root's password and SSH key, the name in os-release,
//! a network that leaves the agent's addresses alone, and nothing in it that belongs to one machine.

use super::SSH_KEY;
use super::password;
use super::root::{Root, Tree};
use crate::command::{Call, Work};
use crate::data::ImageData;
use crate::error::ImageError;

/// The agent has set the network up and goes on seeding over it, so what it set up stays
/// (`KeepConfiguration`), and the server knows the node by its card (`ClientIdentifier`), as the
/// agent and the firmware said it.
const NETWORK: &str = "[Match]\nType=ether\nKind=!*\n\n[Network]\nDHCP=ipv4\nKeepConfiguration=yes\n\n\
                       [DHCPv4]\nClientIdentifier=mac\nSendRelease=no\n";

/// Host keys in the image would be the same on all nodes, and known to whoever downloads it.
const KEYS_UNIT: &str = "[Unit]\nDescription=SSH host keys of this boot\nBefore=ssh.service sshd.service\n\
                         ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key\n\n[Service]\nType=oneshot\n\
                         ExecStart=/usr/bin/ssh-keygen -A\n\n[Install]\nWantedBy=multi-user.target\n";

const HOST_KEYS: [&str; 4] = ["rsa", "dsa", "ecdsa", "ed25519"];

/// Changes the tree as `data` says.
///
/// # Errors
/// If a file of it cannot be read or written.
pub fn apply(tree: &Tree, data: &ImageData) -> Result<(), ImageError> {
    let root = tree.root()?;
    root.make_dir("etc", 0o755)?;
    if let Some(hash) = &data.password {
        let shadow = root.text("etc/shadow")?.unwrap_or_default();
        root.write("etc/shadow", &password::in_shadow(&shadow, hash), 0o640)?;
    }
    ssh(&root, data)?;
    network(&root)?;
    name(&root, data)?;
    // An empty one makes systemd draw a number at each boot; the name of the machine comes by DHCP.
    root.write("etc/machine-id", "", 0o444)?;
    root.remove("etc", "hostname")
}

/// Writes the image's name, kernel and today's date into the tree's os-release.
///
/// # Errors
/// If it cannot be read or written.
pub fn name_in(tree: &Tree, data: &ImageData) -> Result<(), ImageError> {
    name(&tree.root()?, data)
}

fn ssh(root: &Root, data: &ImageData) -> Result<(), ImageError> {
    if let Some(key) = data.attributes.get(SSH_KEY) {
        root.make_dir("root", 0o700)?;
        root.make_dir("root/.ssh", 0o700)?;
        root.write("root/.ssh/authorized_keys", &format!("{}\n", key.trim_end()), 0o600)?;
    }
    let Some(config) = root.text("etc/ssh/sshd_config")? else { return Ok(()) };
    // The first value counts for sshd; with a key, passwords need not be tried by strangers.
    let permit = match (&data.password, data.attributes.contains_key(SSH_KEY)) {
        (Some(_), false) => Some("yes"),
        (_, true) => Some("prohibit-password"),
        (None, false) => None,
    };
    if let Some(permit) = permit {
        let mut text = format!("PermitRootLogin {permit}\n");
        for line in config.lines().filter(|line| !line.starts_with("PermitRootLogin")) {
            text.push_str(line);
            text.push('\n');
        }
        root.write("etc/ssh/sshd_config", &text, 0o600)?;
    }
    for algorithm in HOST_KEYS {
        root.remove("etc/ssh", &format!("ssh_host_{algorithm}_key"))?;
        root.remove("etc/ssh", &format!("ssh_host_{algorithm}_key.pub"))?;
    }
    enable(root, "boottorrent-ssh-keys.service", Some(KEYS_UNIT))
}

/// systemd-networkd, unless something else sets the network up.
fn network(root: &Root) -> Result<(), ImageError> {
    let networkd = "usr/lib/systemd/system/systemd-networkd.service";
    let other = ["usr/sbin/NetworkManager", "usr/sbin/netplan"];
    // Debian installs ifupdown with nothing but the loopback interface in its file.
    let interfaces = root.text("etc/network/interfaces")?.unwrap_or_default();
    let ifupdown = interfaces.lines().any(|it| it.starts_with("iface ") && !it.contains(" lo "));
    if !root.has(networkd) || ifupdown || other.iter().any(|program| root.has(program)) {
        return Ok(());
    }
    root.make_dir("etc/systemd/network", 0o755)?;
    root.write("etc/systemd/network/50-boottorrent.network", NETWORK, 0o644)?;
    enable(root, "systemd-networkd.service", None)
}

/// Has a unit of systemd started at each boot. A tree without systemd has no use for it.
fn enable(root: &Root, unit: &str, text: Option<&str>) -> Result<(), ImageError> {
    if !root.has("usr/lib/systemd/systemd") {
        return Ok(());
    }
    let wants = "etc/systemd/system/multi-user.target.wants";
    root.make_dir(wants, 0o755)?;
    let place = match text {
        Some(text) => {
            root.write(&format!("etc/systemd/system/{unit}"), text, 0o644)?;
            "/etc/systemd/system"
        }
        None => "/usr/lib/systemd/system",
    };
    root.link(&format!("{place}/{unit}"), wants, unit)
}

/// The image's name, kernel and date, as the original wrote them, for who is logged in to a node.
fn name(root: &Root, data: &ImageData) -> Result<(), ImageError> {
    let file = "etc/os-release";
    let before = root.text(file)?.unwrap_or_default();
    let ours = |line: &&str| !line.starts_with("BOOTTORRENT_IMAGE_");
    let mut text = before.lines().filter(ours).collect::<Vec<_>>().join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    let date = time::OffsetDateTime::now_utc().date();
    let kernel = data.kernel_version().unwrap_or_default();
    text.push_str(&format!(
        "BOOTTORRENT_IMAGE_NAME=\"{}\"\nBOOTTORRENT_IMAGE_KERNEL=\"{kernel}\"\n\
         BOOTTORRENT_IMAGE_DATE=\"{date}\"\n",
        data.name
    ));
    root.write(file, &text, 0o644)
}

/// Writes SELinux's labels, which a squashfs keeps, by the tree's own program and policy.
pub(super) fn label(tree: &Tree, work: &Work<'_>) -> Result<(), ImageError> {
    work.step("labelling for SELinux")?;
    let root = tree.root()?;
    let config = root.text("etc/selinux/config")?.unwrap_or_default();
    let policy = config.lines().find_map(|line| line.strip_prefix("SELINUXTYPE="));
    let Some(policy) = policy.map(str::trim).filter(|it| !it.contains(['/', '.'])) else {
        return Err(ImageError::Wrong(
            "the tree has no policy of SELinux: add its packages (selinux-policy-targeted; on \
             Debian selinux-basics and selinux-policy-default), or build without --selinux"
                .to_owned(),
        ));
    };
    let contexts = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
    root.make_dir("proc", 0o555)?;
    if root.plain_folder("proc").is_none() {
        // What the kernel tells of processes would be mounted over a folder of this machine.
        return Err(ImageError::Wrong("/proc of the tree is no folder: make it one".to_owned()));
    }
    Call::new("chroot", "coreutils")
        // It names what it labels through /proc/self/fd.
        .proc(tree)
        .arg(tree.whole())
        .args(["setfiles", "-F", "-e", "/proc", "-e", "/sys", "-e", "/dev", &contexts, "/"])
        .run(work)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn data() -> ImageData {
        ImageData {
            name: "lab".to_owned(),
            kernel: Some("6.1.0-40-amd64".to_owned()),
            password: Some("$6$a$b".to_owned()),
            ..ImageData::default()
        }
    }

    /// A tree with these files, changed; the text of one of them after that.
    fn changed(files: &[(&str, &str)], data: &ImageData, file: &str) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        apply(&Tree::new(dir.path()), data).unwrap();
        // A second time, as after each edit, nothing more is added.
        apply(&Tree::new(dir.path()), data).unwrap();
        fs::read_to_string(dir.path().join(file)).ok()
    }

    #[test]
    fn os_release_names_image_kernel_and_date_once() {
        let text =
            changed(&[("etc/os-release", "ID=debian\n")], &data(), "etc/os-release").unwrap();
        let expect = "ID=debian\nBOOTTORRENT_IMAGE_NAME=\"lab\"\n\
                      BOOTTORRENT_IMAGE_KERNEL=\"6.1.0-40-amd64\"\nBOOTTORRENT_IMAGE_DATE=\"20";
        assert!(text.starts_with(expect), "{text}");
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn root_gets_the_hash_and_may_log_in() {
        let files =
            [("etc/shadow", "root:*:1::::::\n"), ("etc/ssh/sshd_config", "#PermitRootLogin no\n")];
        assert_eq!(changed(&files, &data(), "etc/shadow").unwrap(), "root:$6$a$b:1::::::\n");
        let sshd = changed(&files, &data(), "etc/ssh/sshd_config").unwrap();
        assert_eq!(sshd, "PermitRootLogin yes\n#PermitRootLogin no\n");
    }

    #[test]
    fn a_key_is_authorised_and_passwords_are_not_asked_for() {
        let mut data = data();
        data.attributes.insert(SSH_KEY.to_owned(), "ssh-ed25519 AAAA me".to_owned());
        let files = [("etc/ssh/sshd_config", "PermitRootLogin no\n")];
        let keys = changed(&files, &data, "root/.ssh/authorized_keys").unwrap();
        assert_eq!(keys, "ssh-ed25519 AAAA me\n");
        let sshd = changed(&files, &data, "etc/ssh/sshd_config").unwrap();
        assert_eq!(sshd, "PermitRootLogin prohibit-password\n");
    }

    #[test]
    fn what_belongs_to_one_machine_is_taken_out() {
        let files = [
            ("etc/ssh/sshd_config", ""),
            ("etc/ssh/ssh_host_rsa_key", "private"),
            ("etc/machine-id", "0123"),
            ("etc/hostname", "builder"),
        ];
        assert_eq!(changed(&files, &data(), "etc/ssh/ssh_host_rsa_key"), None);
        assert_eq!(changed(&files, &data(), "etc/hostname"), None);
        assert_eq!(changed(&files, &data(), "etc/machine-id").as_deref(), Some(""));
    }

    #[test]
    fn networkd_is_set_up_where_nothing_else_does_it() {
        let networkd = ("usr/lib/systemd/system/systemd-networkd.service", "");
        let file = "etc/systemd/network/50-boottorrent.network";
        let text = changed(&[networkd], &data(), file).unwrap();
        assert!(text.contains("KeepConfiguration=yes"), "{text}");
        let other = ("usr/sbin/NetworkManager", "");
        assert_eq!(changed(&[networkd, other], &data(), file), None);
    }
}
