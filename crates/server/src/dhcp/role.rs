//! What this server was on its network when it served last: `state/dhcp-role`, one line such as
//! `server 10.0.0.0/24`. With it a stranger's answer during a start flips nothing.

use std::fs;
use std::path::{Path, PathBuf};

use dhcp::{Role, Subnet};

use crate::state;

const FILE: &str = "dhcp-role";

/// Where it is kept, if it is.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Option<PathBuf>);

impl Memory {
    /// In a lab.
    pub(crate) fn of(lab: &Path) -> Self {
        Self(Some(lab.join(state::FOLDER).join(FILE)))
    }

    /// Nowhere.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// What it was on this network. A file that cannot be read is none.
    pub(super) fn last(&self, subnet: Subnet) -> Option<Role> {
        let text = fs::read_to_string(self.0.as_ref()?).ok()?;
        let (role, network) = text.trim().split_once(' ')?;
        match role {
            _ if network != subnet.to_string() => None,
            "server" => Some(Role::Server),
            "proxy" => Some(Role::Proxy),
            _ => None,
        }
    }

    /// Keeps what it is now; on another thread, as a disk may take its time. If that fails, the next start
    /// looks as the first one did.
    pub(super) fn keep(&self, role: Role, subnet: Subnet) {
        let Some(path) = self.0.clone() else {
            return;
        };
        let write = move || {
            if let Err(error) = write(&path, role, subnet) {
                tracing::warn!("cannot write {}: {error}", path.display());
            }
        };
        if let Err(error) = std::thread::Builder::new().name("dhcp-role".to_owned()).spawn(write) {
            tracing::warn!("cannot keep the role of DHCP: {error}");
        }
    }
}

fn write(path: &Path, role: Role, subnet: Subnet) -> std::io::Result<()> {
    let word = match role {
        Role::Server => "server",
        Role::Proxy => "proxy",
    };
    let new = path.with_extension("new");
    fs::write(&new, format!("{word} {subnet}\n"))?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_remembered_for_its_network() {
        let lab = tempfile::tempdir().unwrap();
        fs::create_dir(lab.path().join(state::FOLDER)).unwrap();
        let memory = Memory::of(lab.path());
        let subnet = |third| Subnet::of([10, 0, third, 1].into(), 24);
        assert_eq!(memory.last(subnet(0)), None);
        for role in [Role::Proxy, Role::Server] {
            write(memory.0.as_ref().unwrap(), role, subnet(0)).unwrap();
            assert_eq!(memory.last(subnet(0)), Some(role));
            assert_eq!(memory.last(subnet(1)), None, "moved to another network");
        }
        fs::write(memory.0.as_ref().unwrap(), "nonsense").unwrap();
        assert_eq!(memory.last(subnet(0)), None);
    }
}
