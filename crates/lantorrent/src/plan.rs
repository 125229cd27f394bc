//! Who sends to whom: destinations to a chain, or to a tree of some degree.
//!
//! One endpoint is sent to once, whatever it is to write. With degree 1 the next is the first of
//! the list and gets the rest. With degree *d* the rest is dealt out to *d* branches: disjoint, all
//! of them together complete, and none longer than another by more than one, so the tree is as
//! shallow as it can be. (The original gave every branch the same list.)

use crate::header::{BLOCK_SIZE, Destination, Request};

/// More would be a sender that serves everybody by itself.
pub const DEGREE_MAX: u32 = 16;

/// A file on an endpoint, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub host: String,
    pub port: u16,
    pub request: Request,
}

/// One destination for each endpoint, in the order in which they were first named.
pub fn destinations(wanted: Vec<Wanted>, degree: u32, length: u64) -> Vec<Destination> {
    let mut all: Vec<Destination> = Vec::new();
    for Wanted { host, port, request } in wanted {
        match all.iter_mut().find(|known| known.host == host && known.port == port) {
            Some(known) => known.requests.push(request),
            None => all.push(Destination {
                requests: vec![request],
                host,
                port,
                block_size: BLOCK_SIZE,
                degree: degree.clamp(1, DEGREE_MAX),
                length,
                pace: None,
            }),
        }
    }
    all
}

/// Deals destinations out to at most `degree` branches, each a list whose first is sent to.
pub fn branches(destinations: Vec<Destination>, degree: u32) -> Vec<Vec<Destination>> {
    let count = (degree.clamp(1, DEGREE_MAX) as usize).min(destinations.len());
    let mut branches = vec![Vec::new(); count];
    for (index, destination) in destinations.into_iter().enumerate() {
        branches[index % count].push(destination);
    }
    branches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(host: &str, file: &str) -> Wanted {
        let request = Request { filename: file.into(), id: file.into(), rename: true };
        Wanted { host: host.into(), port: crate::PORT, request }
    }

    #[test]
    fn several_files_of_an_endpoint_are_one_destination() {
        let all = destinations(vec![wanted("a", "/1"), wanted("b", "/2"), wanted("a", "/3")], 1, 5);
        let names: Vec<_> = all.iter().map(|d| (d.host.as_str(), d.requests.len())).collect();
        assert_eq!(names, [("a", 2), ("b", 1)]);
    }

    /// All endpoints that are reached from here, each as often as it is reached.
    fn reached(list: Vec<Destination>, degree: u32, depth: usize) -> Vec<(String, usize)> {
        let mut all = Vec::new();
        for mut branch in branches(list, degree) {
            let head = branch.remove(0);
            all.push((head.host, depth));
            all.extend(reached(branch, degree, depth + 1));
        }
        all
    }

    proptest! {
        #[test]
        fn trees_are_disjoint_complete_and_shallow(count in 0_usize..200, degree in 0_u32..20) {
            let hosts: Vec<String> = (0..count).map(|n| format!("h{n:03}")).collect();
            let wanted = hosts.iter().map(|host| wanted(host, "/f")).collect();
            let mut found = reached(destinations(wanted, degree, 0), degree, 1);
            let depth = found.iter().map(|(_, depth)| *depth).max().unwrap_or(0);
            found.sort();
            let names: Vec<String> = found.into_iter().map(|(host, _)| host).collect();
            prop_assert_eq!(names, hosts);
            let degree = u64::from(degree.clamp(1, DEGREE_MAX));
            // A full tree of one level less would not hold them all.
            let held: u64 = (1..depth as u32).map(|level| degree.pow(level)).sum();
            prop_assert!(depth == 0 || held < count as u64 || degree == 1);
        }
    }
}
