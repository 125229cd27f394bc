//! Groups of nodes.yaml: what their nodes have in common, and which nodes are theirs without saying so.

use std::collections::BTreeSet;

use boot::{Arch, ImageName};
use dhcp::Subnet;

use super::settings::BootFrom;
use super::template::{Facts, Vars};

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Which nodes are its own that name no group.
    pub(crate) selector: Option<Selector>,
    /// What they boot without a menu.
    pub(crate) image: Option<ImageName>,
    /// A template.
    pub(crate) cmdline: String,
    /// How they boot.
    pub(crate) boot: Option<BootFrom>,
    pub(crate) vars: Vars,
}

/// What a node must be like. Each kind of it that is there must hold, by any of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) macs: Vec<MacPrefix>,
    pub(crate) uuids: Vec<Uuid>,
    pub(crate) archs: Vec<Arch>,
    pub(crate) subnets: Vec<Subnet>,
    pub(crate) names: BTreeSet<String>,
}

/// The first bytes of an Ethernet address, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MacPrefix(pub(crate) Vec<u8>);

/// A machine's identifier, in small letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uuid(pub(crate) String);

impl Selector {
    /// Whether it says nothing, and so holds for nobody: a mistake must not catch the whole room.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a node is like that. What is not known of it does not hold.
    pub(crate) fn takes(&self, node: &Facts<'_>) -> bool {
        let Self { macs, uuids, archs, subnets, names } = self;
        !self.is_empty()
            && holds(macs, |prefix| node.mac.0.starts_with(&prefix.0))
            && holds(uuids, |uuid| node.uuid == Some(uuid.0.as_str()))
            && holds(archs, |arch| node.arch == Some(*arch))
            && holds(subnets, |subnet| node.address.is_some_and(|address| subnet.contains(address)))
            && (names.is_empty() || node.name.is_some_and(|name| names.contains(name)))
    }
}

fn holds<T>(values: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(is_it)
}

/// The first group that a node is in without saying so.
pub(crate) fn of<'a>(groups: &'a [Group], node: &Facts<'_>) -> Option<&'a Group> {
    groups.iter().find(|group| group.selector.as_ref().is_some_and(|one| one.takes(node)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn every_kind_must_hold_by_one_of_its_values() {
        let selector = Selector {
            macs: vec![MacPrefix(vec![0x52, 0x54]), MacPrefix(vec![2])],
            archs: vec![Arch::X86_64],
            subnets: vec![Subnet::of(Ipv4Addr::new(10, 0, 7, 0), 24)],
            ..Selector::default()
        };
        let node = Facts {
            name: None,
            mac: "525400000001".parse().unwrap(),
            address: Some(Ipv4Addr::new(10, 0, 7, 9)),
            uuid: None,
            arch: Some(Arch::X86_64),
            group: None,
        };
        assert!(selector.takes(&node));
        assert!(selector.takes(&Facts { mac: "020000000001".parse().unwrap(), ..node }));
        assert!(!selector.takes(&Facts { mac: "040000000001".parse().unwrap(), ..node }));
        assert!(!selector.takes(&Facts { arch: Some(Arch::Arm64), ..node }));
        assert!(
            !selector.takes(&Facts { address: None, ..node }),
            "what is not known does not hold"
        );
        let named = Selector { names: BTreeSet::from(["c001".to_owned()]), ..Selector::default() };
        assert!(named.takes(&Facts { name: Some("c001"), ..node }));
        assert!(!named.takes(&node));
        assert!(!Selector::default().takes(&node), "of nothing nobody is caught");
    }
}
