//! A program of the image, in place of the agent.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use boot::ImagePath;

use super::{ForNode, LoadFailure, words};
use crate::download::VerifiedImage;
use crate::keyboard;

/// A torrent says nothing of modes that matters here: the loader names what is a program.
const MODE: u32 = 0o755;

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Plan {
    path: ImagePath,
    folder: PathBuf,
    args: Vec<String>,
    /// What it finds in its environment.
    variables: Vec<(&'static str, String)>,
}

/// What a program is told of where it runs; what is not known is not there.
fn variables(image: &str, node: ForNode<'_>) -> Vec<(&'static str, String)> {
    let mac = node.mac.map(|mac| mac.to_string());
    let known = [
        ("BOOTTORRENT_IMAGE", Some(image)),
        // As elsewhere: its name, or its Ethernet address.
        ("BOOTTORRENT_NODE", node.name.or(mac.as_deref())),
        ("BOOTTORRENT_MAC", mac.as_deref()),
        ("BOOTTORRENT_INTERFACE", node.interface),
        ("BOOTTORRENT_ADDRESS", node.address),
        ("BOOTTORRENT_SERVER", node.server),
    ];
    let usual = [("PATH", Some("/sbin:/bin:/usr/sbin:/usr/bin")), ("HOME", Some("/"))];
    let all = usual.into_iter().chain([("TERM", Some("linux"))]).chain(known);
    all.filter_map(|(name, value)| Some((name, value?.to_owned()))).collect()
}

impl Plan {
    pub(super) fn new(
        image: &VerifiedImage,
        bin: &ImagePath,
        args: &str,
        node: ForNode<'_>,
    ) -> Result<Self, LoadFailure> {
        super::file(image, bin)?.0.check_unchanged()?;
        Ok(Self {
            path: bin.clone(),
            folder: image.folder().to_owned(),
            args: words::split(args)?,
            variables: variables(image.image().name.as_str(), node),
        })
    }

    pub(super) fn describe(&self) -> String {
        format!("program {} {:?} in {}", self.path, self.args, self.folder.display())
    }

    /// As [`Self::describe`], and with its environment.
    pub(super) fn in_full(&self) -> String {
        let lines = self.variables.iter().map(|(name, value)| format!("\n{name}={value}"));
        self.describe() + &lines.collect::<String>()
    }

    pub(super) fn make_executable(&self) -> Result<(), LoadFailure> {
        let mode = std::fs::Permissions::from_mode(MODE);
        std::fs::set_permissions(self.program(), mode).map_err(|source| self.failed(source))
    }

    pub(super) fn start(self) -> LoadFailure {
        let modes = keyboard::pause();
        let error = Command::new(self.program())
            .args(&self.args)
            .current_dir(&self.folder)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .exec();
        drop(modes);
        self.failed(error)
    }

    fn program(&self) -> PathBuf {
        self.folder.join(self.path.as_str())
    }

    fn failed(&self, source: std::io::Error) -> LoadFailure {
        LoadFailure::Exec { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_knows_where_it_runs() {
        let mac = Some("52:54:00:12:34:56".parse().unwrap());
        let node = ForNode {
            name: Some("c001"),
            mac,
            address: Some("10.0.0.50"),
            server: Some("http://10.0.0.1:8080"),
            ..ForNode::default()
        };
        let text = |node| {
            let all = variables("tools", node).into_iter().skip(3);
            all.map(|(name, value)| format!("{}={value} ", &name[12..])).collect::<String>()
        };
        assert_eq!(
            text(node),
            "IMAGE=tools NODE=c001 MAC=52:54:00:12:34:56 ADDRESS=10.0.0.50 \
             SERVER=http://10.0.0.1:8080 "
        );
        let unnamed = ForNode { mac, ..ForNode::default() };
        assert_eq!(text(unnamed), "IMAGE=tools NODE=52:54:00:12:34:56 MAC=52:54:00:12:34:56 ");
    }
}
