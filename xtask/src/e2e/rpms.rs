//! What images are made of in tests: a repository of tiny rpms, with the names that a Red Hat of the
//! smallest type installs, and a container image as other programs write it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Packages with the files that they bring, each a line of the path and its text.
const PACKAGES: &[(&str, &str)] = &[
    ("iproute", "/usr/sbin/ip"),
    ("procps-ng", "/usr/bin/ps"),
    ("openssh-server", "/etc/ssh/sshd_config"),
    ("lab-release", "/etc/os-release"),
    ("lab-tool", "/usr/bin/lab-tool"),
];

/// A repository for `dnf`: its folder.
pub(crate) fn repository(dir: &Path) -> Result<PathBuf> {
    super::fresh(dir)?;
    let repository = dir.join("repository");
    for (name, file) in PACKAGES {
        let requires = if *name == "iproute" { "Requires: lab-release\n" } else { "" };
        let spec = format!(
            "Name: {name}\nVersion: 1\nRelease: 1\nSummary: A test\nLicense: MIT\nBuildArch: noarch\n\
             {requires}%description\nA test.\n%install\nmkdir -p %{{buildroot}}$(dirname {file})\n\
             echo '# of {name}' >%{{buildroot}}{file}\n%files\n{file}\n"
        );
        let path = dir.join(format!("{name}.spec"));
        std::fs::write(&path, spec).with_context(|| format!("writing {}", path.display()))?;
        let mut build = Command::new("rpmbuild");
        build.args(["-bb", "--quiet", "--define"]).arg(format!("_topdir {}", dir.display()));
        build.arg("--define").arg(format!("_rpmdir {}", repository.display())).arg(&path);
        run(build)?;
    }
    let mut index = Command::new("createrepo_c");
    index.arg("--quiet").arg(&repository);
    run(index)?;
    Ok(repository)
}

/// Writes a tree as a container image in the archive that `docker save` writes, through an OCI layout
/// made by skopeo from a plain folder of one layer.
pub(crate) fn saved_container(tree: &Path, to: &Path, dir: &Path) -> Result<()> {
    let plain = dir.join("container-dir");
    super::fresh(&plain)?;
    let layer = plain.join("layer");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(&layer)
        .arg("-C")
        .arg(tree)
        .arg(".");
    run(tar)?;
    let digest = |bytes: &[u8]| {
        use sha2::Digest as _;
        crate::bench::hex(&sha2::Sha256::digest(bytes))
    };
    let bytes = std::fs::read(&layer).context("reading the layer")?;
    let layer_digest = digest(&bytes);
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:{layer_digest}\"]}}}}"
    );
    let config_digest = digest(config.as_bytes());
    let manifest = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.docker.distribution.manifest.v2+json\",\
         \"config\":{{\"mediaType\":\"application/vnd.docker.container.image.v1+json\",\
         \"size\":{},\"digest\":\"sha256:{config_digest}\"}},\
         \"layers\":[{{\"mediaType\":\"application/vnd.docker.image.rootfs.diff.tar\",\
         \"size\":{},\"digest\":\"sha256:{layer_digest}\"}}]}}",
        config.len(),
        bytes.len()
    );
    std::fs::write(plain.join("version"), "Directory Transport Version: 1.1\n")?;
    std::fs::write(plain.join("manifest.json"), manifest)?;
    std::fs::write(plain.join(&config_digest), config)?;
    std::fs::rename(&layer, plain.join(&layer_digest)).context("naming the layer")?;
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--quiet"]);
    copy.arg(format!("dir:{}", plain.display()));
    copy.arg(format!("docker-archive:{}:test:1", to.display()));
    run(copy)
}

fn run(mut command: Command) -> Result<()> {
    let out =
        command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "{command:?}: {}: {}", out.status, text.trim());
    Ok(())
}
