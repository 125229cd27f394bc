//! What images are made of in tests: a repository of tiny rpms, with the names that a Red Hat of the
//! smallest type installs, packages of kernels, and a container image as other programs write it.

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
        rpmbuild(dir, &repository, &path)?;
    }
    let mut index = Command::new("createrepo_c");
    index.arg("--quiet").arg(&repository);
    run(index)?;
    Ok(repository)
}

/// A kernel's packages of a Debian and of a Red Hat, which they have in other places, with one driver.
pub(crate) fn kernels(dir: &Path, driver: &Path) -> Result<[(PathBuf, &'static str); 2]> {
    let (of_deb, of_rpm) = ("6.90.0-1-test", "6.91.0-1.el9.x86_64");
    let tree = dir.join("deb");
    super::fresh(&tree)?;
    let fill = |version: &str, image: &str, modules: &str| -> Result<()> {
        let modules = tree.join(modules).join(version);
        let image = tree.join(image);
        std::fs::create_dir_all(modules.join("kernel/drivers/net"))?;
        std::fs::create_dir_all(image.parent().context("an image is in a folder")?)?;
        std::fs::write(&image, format!("kernel {version}"))?;
        for index in ["modules.builtin", "modules.order"] {
            std::fs::write(modules.join(index), "")?;
        }
        let name = driver.file_name().context("a driver has a name")?;
        std::fs::copy(driver, modules.join("kernel/drivers/net").join(name))?;
        Ok(())
    };
    fill(of_deb, &format!("boot/vmlinuz-{of_deb}"), "lib/modules")?;
    std::fs::create_dir_all(tree.join("DEBIAN"))?;
    let control = "Package: linux-image-test\nVersion: 1\nArchitecture: amd64\n\
                   Maintainer: test <test@example.org>\nDescription: a test\n";
    std::fs::write(tree.join("DEBIAN/control"), control)?;
    let deb = dir.join("linux-image-test.deb");
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "--build"]).arg(&tree).arg(&deb);
    run(build)?;
    super::fresh(&tree)?;
    fill(of_rpm, &format!("lib/modules/{of_rpm}/vmlinuz"), "lib/modules")?;
    let spec = format!(
        "Name: kernel-test\nVersion: 1\nRelease: 1\nSummary: A test\nLicense: MIT\nBuildArch: noarch\n\
         %description\nA test.\n%install\ncp -a {}/. %{{buildroot}}/\n%files\n/lib/modules/{of_rpm}\n",
        tree.display()
    );
    let path = dir.join("kernel-test.spec");
    std::fs::write(&path, spec).with_context(|| format!("writing {}", path.display()))?;
    rpmbuild(dir, dir, &path)?;
    Ok([(deb, of_deb), (dir.join("noarch/kernel-test-1-1.noarch.rpm"), of_rpm)])
}

/// Builds what a spec says; the package is in a folder for its architecture under `to`.
fn rpmbuild(dir: &Path, to: &Path, spec: &Path) -> Result<()> {
    let mut build = Command::new("rpmbuild");
    build.args(["-bb", "--quiet", "--define"]).arg(format!("_topdir {}", dir.display()));
    build.arg("--define").arg(format!("_rpmdir {}", to.display())).arg(spec);
    run(build)
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
