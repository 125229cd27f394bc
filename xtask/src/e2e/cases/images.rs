//! Images are built for real, without a machine: from packages of a repository made here, from a
//! container image, from what the cached Debian is; edited, killed, and served by NFS trees.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::e2e::live::Live;
use crate::e2e::terminal::{Ended, Terminal};
use crate::e2e::{Stage, rpms, testos};
use crate::guard::Guard;
use crate::release_binary;

/// A build of these takes seconds; machines that do other things too take longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A lab with images, without a server.
struct Images {
    lab: PathBuf,
}

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = stage.dir.join("lab");
    let images = Images { lab: lab.clone() };
    images.ours(&["init", path(&lab)?])?;
    let kernel = stage.testos.kernel().release();
    rpm(&images, &stage.dir, kernel).context("from rpms")?;
    questions(&images, &stage.dir, kernel).context("questions on a terminal")?;
    labelled(&images, &stage.dir, kernel).context("labels of SELinux")?;
    packaged_kernels(&images, &stage.dir, kernel).context("kernels from packages")?;
    container(&images, &stage.dir, kernel).context("from a container image")?;
    killed(&images, &stage.dir, kernel).context("a build that is killed")?;
    nfs(&images).context("NFS trees")?;
    let live = Live::build()?;
    live.install(&lab, "live")?;
    edited(&images).context("editing a live Debian")?;
    kernels(&images, &live.kernel()?).context("kernels")
}

/// dnf --installroot from a repository of tiny packages; then what a user does with the image.
fn rpm(images: &Images, dir: &Path, kernel: &str) -> Result<()> {
    let repository = rpms::repository(&dir.join("rpms"))?;
    let mirror = format!("file://{}", path(&repository)?);
    let from = ["--from", "packages:rpm", "--mirror", &mirror, "--type", "core", "--release", "9"];
    let create = |name: &str, extra: &[&str]| {
        let args = [&["image", "create", name, "--yes", "--kernel", kernel], &from[..], extra];
        images.call(&args.concat())
    };
    let out = create("el9", &["--packages", "no-such-thing"])?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(text.contains("no package `no-such-thing`"), "an unknown package is not named: {text}");
    ensure!(!images.folder("el9").exists(), "a failed build left an image");
    succeed(create("el9", &["--packages", "lab-tool", "--optimize"])?)?;
    images.ours(&["image", "mount", "el9"])?;
    let tree = images.lab.join("state/images/el9/mount/root");
    let release = read(&tree.join("etc/os-release"))?;
    ensure!(release.contains("BOOTTORRENT_IMAGE_NAME=\"el9\""), "os-release: {release}");
    ensure!(tree.join("usr/bin/lab-tool").is_file(), "the extra package is missing");
    ensure!(tree.join("usr/lib/modules").join(kernel).is_dir(), "the kernel's modules are missing");
    images.ours(&["image", "unmount", "el9", "--discard"])?;
    let config = read(&images.folder("el9").join("config.yaml"))?;
    ensure!(config.contains(&format!("kernel_version: {kernel}\n")), "{config}");
    let out = images.call(&["image", "resize", "el9", "100M"])?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(text.contains("does not fit into 100 MB"), "a size that is too small: {text}");
    images.ours(&["image", "resize", "el9", "5G"])
}

/// What was not said is asked for, Ctrl+C at any question leaves nothing, and a yes to the recap makes it.
fn questions(images: &Images, dir: &Path, kernel: &str) -> Result<()> {
    let tree = dir.join("asked");
    std::fs::create_dir_all(tree.join("etc"))?;
    std::fs::write(tree.join("etc/os-release"), "ID=test\n")?;
    let from = format!("directory:{}", path(&tree)?);
    let ask = |shown: &str| {
        let args = ["image", "create", "asked", "--from", &from, "--kernel", kernel];
        eprintln!("  boottorrent {} (on a terminal)", args.join(" "));
        Terminal::start(&images.command(&args)?, &dir.join(shown))
    };
    const CTRL_C: &str = "\u{3}";
    for (shown, answers) in [
        ("asked.1", &[("Kind:", CTRL_C)][..]),
        ("asked.2", &[("Kind:", "\r"), ("password", CTRL_C)]),
        ("asked.3", &[("Kind:", "\r"), ("password", "x\r"), ("Again", "x\r"), ("Type:", CTRL_C)]),
    ] {
        let mut terminal = ask(shown)?;
        for (question, keys) in answers {
            answer(&mut terminal, question, keys)?;
        }
        let Ended { code, text, has_echo } = terminal.finish()?;
        ensure!(code == Some(130), "Ctrl+C ended it with {code:?}: {text}");
        ensure!(text.contains("interrupted: nothing was made"), "Ctrl+C was not answered: {text}");
        ensure!(has_echo, "the terminal hides what is typed after Ctrl+C");
        let shown = read(&dir.join(shown))?;
        let (hidden, again) = (shown.rfind("\u{1b}[?25l"), shown.rfind("\u{1b}[?25h"));
        ensure!(hidden < again, "the cursor stays hidden: {shown:?}");
        ensure!(!images.folder("asked").exists(), "an image was made");
    }
    let mut terminal = ask("asked.4")?;
    for (question, keys) in [
        ("Kind:", "\r"),
        ("password", "lab\r"),
        ("Again", "lab\r"),
        ("Type:", "\r"),
        ("Size", "7 apples\r"),
        ("no size", &"\u{8}".repeat(8)),
        ("Size", "700M\r"),
        ("SSH key", "\r"),
        ("More packages", "\r"),
        ("Release", "\r"),
        ("SELinux?", "\r"),
        ("Leave out", "y"),
        ("Make it?", "\r"),
    ] {
        answer(&mut terminal, question, keys)?;
    }
    let Ended { code, text, .. } = terminal.finish()?;
    ensure!(code == Some(0), "ended with {code:?}: {text}");
    for line in ["livenet `asked`", "password     set", "size         700", "optimised    true"] {
        ensure!(text.contains(line), "the recap has no `{line}`: {text}");
    }
    ensure!(images.folder("asked").join("squashfs.img").is_file(), "no image was made: {text}");
    images.ours(&["image", "remove", "asked"])
}

/// A password is typed when it is hidden.
fn answer(terminal: &mut Terminal, question: &str, keys: &str) -> Result<()> {
    match question {
        "password" | "Again" => terminal.answer_hidden(question, keys),
        _ => terminal.answer(question, keys),
    }
}

/// The tree's own program labels it: with its policy, in the tree, and with what it needs of /proc.
fn labelled(images: &Images, dir: &Path, kernel: &str) -> Result<()> {
    let tree = dir.join("labelled");
    for folder in ["bin", "usr/sbin", "etc/selinux"] {
        std::fs::create_dir_all(tree.join(folder))?;
    }
    std::fs::copy("/bin/busybox", tree.join("bin/busybox")).context("copying busybox")?;
    std::fs::write(tree.join("etc/os-release"), "ID=test\n")?;
    std::fs::write(tree.join("etc/selinux/config"), "SELINUX=enforcing\nSELINUXTYPE=lab\n")?;
    let setfiles = "#!/bin/busybox sh\n[ -e /proc/self/fd/0 ] && echo \"$*\" >/labelled\n";
    testos::write_program(&tree.join("usr/sbin/setfiles"), setfiles)?;
    let from = format!("directory:{}", path(&tree)?);
    let create = ["image", "create", "labels", "--yes", "--selinux", "--from", &from];
    images.ours(&[&create[..], &["--kernel", kernel]].concat())?;
    images.ours(&["image", "mount", "labels"])?;
    let told = read(&images.lab.join("state/images/labels/mount/root/labelled"))?;
    ensure!(
        told.trim_end().ends_with("/etc/selinux/lab/contexts/files/file_contexts /"),
        "setfiles was told: {told}"
    );
    images.ours(&["image", "unmount", "labels", "--discard"])?;
    images.ours(&["image", "remove", "labels"])
}

/// Kernels of a .deb and of a .rpm are taken in, and an image goes over to them and back.
fn packaged_kernels(images: &Images, dir: &Path, first: &str) -> Result<()> {
    let driver = Path::new("/lib/modules").join(first).join("kernel/drivers/net/dummy.ko");
    let kernels = rpms::kernels(&dir.join("kernels"), &driver)?;
    for (package, version) in &kernels {
        images.ours(&["kernel", "add", path(package)?])?;
        images.ours(&["image", "set-kernel", "el9", version])?;
        let config = read(&images.folder("el9").join("config.yaml"))?;
        ensure!(config.contains(&format!("kernel_version: {version}\n")), "{config}");
        let module = format!("usr/lib/modules/{version}/kernel/drivers/net/dummy.ko");
        let of_split = module.trim_start_matches("usr/");
        ensure!(
            images.has("el9", &module)? || images.has("el9", of_split)?,
            "the image has no modules of {version}"
        );
        let modules = images.lab.join("kernels").join(version).join("modules");
        ensure!(modules.join("modules.dep").is_file(), "{version} has no index of its modules");
        let out = images.call(&["kernel", "remove", version])?;
        let text = String::from_utf8_lossy(&out.stderr);
        ensure!(text.contains("in use by el9"), "a kernel in use: {text}");
    }
    for (_, version) in kernels.iter().rev() {
        images.ours(&["image", "rollback", "el9"])?;
        images.ours(&["kernel", "remove", version])?;
    }
    let config = read(&images.folder("el9").join("config.yaml"))?;
    ensure!(config.contains(&format!("kernel_version: {first}\n")), "{config}");
    Ok(())
}

/// A container image as an OCI layout of skopeo's, which checks what we read.
fn container(images: &Images, dir: &Path, kernel: &str) -> Result<()> {
    let (tree, saved) = (dir.join("container"), dir.join("saved.tar"));
    std::fs::create_dir_all(tree.join("usr/bin"))?;
    std::fs::create_dir_all(tree.join("etc"))?;
    testos::write_program(&tree.join("usr/bin/hello"), "#!/bin/sh\n")?;
    std::fs::write(tree.join("etc/os-release"), "ID=test\n")?;
    rpms::saved_container(&tree, &saved, dir)?;
    let from = format!("oci:{}", path(&saved)?);
    images.ours(&["image", "create", "box", "--yes", "--from", &from, "--kernel", kernel])?;
    let data = images.show("box")?;
    ensure!(data["attributes"]["source"] == from.as_str(), "the source is not noted: {data}");
    images.ours(&["image", "remove", "box"])
}

/// `kill -9` in the middle: nothing of the build goes on, and the next command removes what is left.
fn killed(images: &Images, dir: &Path, kernel: &str) -> Result<()> {
    // It never ends by itself: the archive is a pipe that nobody closes.
    let pipe = dir.join("endless.tar");
    succeed(Command::new("mkfifo").arg(&pipe).output().context("running mkfifo")?)?;
    let from = format!("tar:{}", path(&pipe)?);
    let args = ["image", "create", "dead", "--yes", "--from", &from, "--kernel", kernel];
    let mut build = images.command(&args)?.spawn().context("running boottorrent")?;
    let _writer = std::fs::OpenOptions::new().write(true).open(&pipe)?;
    let listed = images.wait(|list| list["status"] == "IN_CREATION", "dead")?;
    ensure!(listed["pid"] == build.id(), "not the builder's process: {listed}");
    let out = images.call(&args)?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(text.contains("is being built by process"), "two builds of one name: {text}");
    wait_for_child(&build)?;
    build.kill().context("killing the build")?;
    build.wait().context("waiting for the killed build")?;
    let out = images.call(&["image", "list"])?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    ensure!(text.contains("killed build of `dead`"), "the next command did not clean: {text}");
    let left = images.lab.join("state/builds/dead");
    ensure!(!left.exists(), "left behind: {}", left.display());
    let start = Instant::now();
    while !readers(&pipe)?.is_empty() {
        ensure!(start.elapsed() < TIMEOUT, "tar goes on without its build: {:?}", readers(&pipe)?);
        std::thread::yield_now();
    }
    Ok(())
}

/// Waits until the build has begun to read, so that there is something to kill.
fn wait_for_child(build: &Child) -> Result<()> {
    let start = Instant::now();
    let children = format!("/proc/{0}/task/{0}/children", build.id());
    while std::fs::read_to_string(&children).is_ok_and(|text| text.trim().is_empty()) {
        ensure!(start.elapsed() < TIMEOUT, "the build runs no program");
        std::thread::yield_now();
    }
    Ok(())
}

/// The processes of `tar` that were told to read a file.
fn readers(file: &Path) -> Result<Vec<String>> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").context("reading /proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let command = std::fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        let words: Vec<_> = command.split(|&byte| byte == 0).collect();
        if words.first() == Some(&&b"tar"[..]) && words.contains(&path(file)?.as_bytes()) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Staging, golden, and trees of nodes.
fn nfs(images: &Images) -> Result<()> {
    let el9 = images.folder("el9").join("squashfs.img");
    let from = format!("squashfs:{}", path(&el9)?);
    images.ours(&["image", "create", "stage", "--yes", "--kind", "nfs", "--from", &from])?;
    let create = ["image", "create", "gold", "--yes", "--kind", "nfs-golden", "--staging", "stage"];
    images.ours(&create)?;
    let nodes = "nodes:\n  c001: {mac: 52:54:00:00:00:01}\n  c002: {mac: 52:54:00:00:00:02}\n";
    std::fs::write(images.lab.join("nodes.yaml"), nodes)?;
    images.ours(&["image", "nodes", "add", "gold", "c001,c002"])?;
    let out = images.call(&["image", "nodes", "add", "gold", "c003"])?;
    ensure!(!out.status.success(), "a node that nodes.yaml does not know got a tree");
    let trees = images.lab.join("state/nfs/golden/gold/nodes");
    ensure!(trees.join("c001/etc/os-release").is_file(), "c001 has no tree");
    images.ours(&["image", "nodes", "remove", "gold", "c002"])?;
    ensure!(!trees.join("c002").exists(), "c002 still has a tree");
    let config = read(&images.folder("gold").join("config.yaml"))?;
    ensure!(config.contains("state/nfs/golden/gold/nodes/{node}\""), "{config}");
    images.ours(&["image", "remove", "gold", "stage"])?;
    ensure!(!trees.exists(), "trees of a removed image are left");
    Ok(())
}

/// Mount, change, unmount: a version that has the change; back: one that has not.
fn edited(images: &Images) -> Result<()> {
    images.ours(&["image", "mount", "live", "--", "touch", "/etc/was-here"])?;
    let root = images.lab.join("state/images/live/mount/root");
    ensure!(root.join("proc/self").exists(), "/proc is not bound");
    let host = read(&images.lab.join("state/images/live/mount/inventory/host"))?;
    ensure!(host == format!("{} ansible_connection=chroot\n", root.display()), "{host}");
    let out = images.call(&["image", "remove", "live"])?;
    ensure!(!out.status.success(), "a mounted image was removed");
    // Somebody's shell is in there: nothing may be lost.
    let busy = Command::new("sh")
        .args(["-c", "read -r line"])
        .current_dir(root.join("dev"))
        .stdin(Stdio::piped())
        .spawn()
        .context("running sh")?;
    let mut busy = Guard(busy);
    let out = images.call(&["image", "unmount", "live"])?;
    ensure!(!out.status.success(), "unmounted what is in use");
    ensure!(root.join("etc/was-here").is_file(), "a failed unmount has removed something");
    drop(busy.0.stdin.take());
    busy.0.wait().context("waiting for sh")?;
    images.ours(&["image", "unmount", "live"])?;
    ensure!(!root.exists(), "the tree is left");
    ensure!(images.has("live", "etc/was-here")?, "the change is not in the new version");
    images.ours(&["image", "rollback", "live"])?;
    ensure!(!images.has("live", "etc/was-here")?, "the version before has the change");
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    ensure!(!mounts.contains(path(&images.lab)?), "mounts are left:\n{mounts}");
    Ok(())
}

/// A kernel in use stays; another can be taken in from its package.
fn kernels(images: &Images, version: &str) -> Result<()> {
    let out = images.call(&["kernel", "remove", version])?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(text.contains("in use by live"), "a kernel in use: {text}");
    images.ours(&["image", "remove", "live"])?;
    images.ours(&["kernel", "remove", version])
}

impl Images {
    fn folder(&self, name: &str) -> PathBuf {
        self.lab.join("oss").join(name)
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(release_binary()?);
        if args.first() != Some(&"init") {
            command.arg("-C").arg(&self.lab);
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    fn call(&self, args: &[&str]) -> Result<Output> {
        eprintln!("  boottorrent {}", args.join(" "));
        self.command(args)?.output().context("running boottorrent")
    }

    fn ours(&self, args: &[&str]) -> Result<()> {
        succeed(self.call(args)?).with_context(|| args.join(" "))
    }

    fn show(&self, name: &str) -> Result<Value> {
        let out = self.call(&["image", "show", name, "-o", "json"])?;
        serde_json::from_slice(&out.stdout).context("reading what `image show` says")
    }

    /// Waits until an image is so.
    fn wait(&self, is_so: impl Fn(&Value) -> bool, name: &str) -> Result<Value> {
        let start = Instant::now();
        loop {
            let out = self.command(&["image", "list", "-o", "json"])?.output()?;
            let list: Value = serde_json::from_slice(&out.stdout).context("reading the list")?;
            let images = list["images"].as_array().cloned().unwrap_or_default();
            if let Some(image) = images.into_iter().find(|it| it["name"] == name && is_so(it)) {
                return Ok(image);
            }
            if start.elapsed() > TIMEOUT {
                bail!("{name} is not so: {list}");
            }
        }
    }

    /// Whether the image's squashfs has a file.
    fn has(&self, name: &str, file: &str) -> Result<bool> {
        let squashfs = self.folder(name).join("squashfs.img");
        let mut list = Command::new("unsquashfs");
        list.args(["-l", "-no-progress"]).arg(&squashfs).arg(file);
        let out = list.output().context("running unsquashfs")?;
        Ok(String::from_utf8_lossy(&out.stdout).contains(&format!("squashfs-root/{file}")))
    }
}

fn succeed(out: Output) -> Result<()> {
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{}: {}", out.status, text.trim());
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}
