use super::*;
use crate::tracker::rng::Rng;
use proptest::prelude::*;

fn addr(number: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::V4((0x0a00_0000 + number).into()), 6881)
}

fn join(roster: &mut Roster, number: u32, has: Has, rng: &mut Rng) -> Vec<u32> {
    let at = roster.insert(Peer::new(addr(number), [0; 20], has));
    roster.hand_out(at, HANDOUT, false, rng)
}

/// One seed, then `count` nodes.
fn crowd(count: u32, seed: u64) -> (Roster, Vec<Vec<u32>>) {
    let (mut roster, mut rng) = (Roster::default(), Rng::new(seed));
    let dialled = (0..=count)
        .map(|number| {
            let has = if number == 0 { Has::Origin } else { Has::Part };
            join(&mut roster, number, has, &mut rng)
        })
        .collect();
    (roster, dialled)
}

/// The graph as peers see it: from what they dialled, not from what the roster remembers.
fn graph(dialled: &[Vec<u32>]) -> Vec<BTreeSet<u32>> {
    let mut graph = vec![BTreeSet::new(); dialled.len()];
    for (from, to) in dialled.iter().enumerate() {
        for &to in to {
            graph[from].insert(to);
            graph[to as usize].insert(from as u32);
        }
    }
    graph
}

/// Links from `from` to the farthest; `None` if some are not reached.
fn eccentricity(graph: &[BTreeSet<u32>], from: u32) -> Option<usize> {
    let mut seen = BTreeSet::from([from]);
    let mut edge = vec![from];
    for distance in 0.. {
        if seen.len() == graph.len() {
            return Some(distance);
        }
        edge = edge
            .iter()
            .flat_map(|&at| &graph[at as usize])
            .copied()
            .filter(|&at| seen.insert(at))
            .collect();
        if edge.is_empty() {
            return None;
        }
    }
    None
}

#[test]
fn origin_seed_that_comes_back_is_told_of_leeches_that_were_told_of_it() {
    let (mut roster, mut rng) = (Roster::default(), Rng::new(1));
    assert!(join(&mut roster, 0, Has::Origin, &mut rng).is_empty());
    assert_eq!(join(&mut roster, 1, Has::Part, &mut rng), [0]);
    assert_eq!(join(&mut roster, 2, Has::Completed, &mut rng), [1]);
    assert_eq!(roster.hand_out(0, HANDOUT, false, &mut rng), [1]);
}

#[test]
fn newcomers_in_sequence_make_a_nearly_regular_graph() {
    for (count, across_max, seeds) in [(16, 2, 5), (64, 3, 5), (1000, 5, 5), (10_000, 7, 1)] {
        for seed in 0..seeds {
            let (roster, dialled) = crowd(count, seed);
            let graph = graph(&dialled);
            let degrees: Vec<usize> = graph[1..].iter().map(BTreeSet::len).collect();
            let (least, most) = (degrees.iter().min().unwrap(), degrees.iter().max().unwrap());
            assert!(*least >= 6 && *most <= 24, "{count} nodes: {least} to {most}");
            assert!(graph[0].len() <= 40, "{count} nodes: {} know the seed", graph[0].len());
            assert!(graph[0].len() >= SEED_KNOWN.min(count as usize));
            let across = eccentricity(&graph, 0).expect("connected");
            assert!(across <= across_max, "{count} nodes: {across} links across");
            assert!(eccentricity(&graph, count) <= Some(across_max));
            assert_eq!(roster.peer(5).links.len(), graph[5].len());
        }
    }
}

#[test]
fn graph_stays_connected_when_a_quarter_dies_at_once() {
    let (_, dialled) = crowd(1000, 1);
    let mut rng = Rng::new(2);
    let mut numbers: Vec<u32> = (1..=1000).collect();
    rng.shuffle(&mut numbers);
    let dead: BTreeSet<u32> = numbers[..250].iter().copied().collect();
    let mut graph = graph(&dialled);
    for (at, links) in graph.iter_mut().enumerate() {
        links.retain(|link| !dead.contains(link) && !dead.contains(&(at as u32)));
    }
    let least =
        (1..graph.len()).filter(|&at| !dead.contains(&(at as u32))).map(|at| graph[at].len()).min();
    assert!(least >= Some(2), "{least:?}");
    // The dead are taken out by giving them a link to the seed, so that only the living can be cut off.
    for &at in &dead {
        graph[at as usize].insert(0);
        graph[0].insert(at);
    }
    assert!(eccentricity(&graph, 0).is_some());
}

#[test]
fn first_ones_get_whoever_is_there() {
    let (_, dialled) = crowd(12, 1);
    for (number, handout) in dialled.iter().enumerate() {
        assert_eq!(handout.len(), number.min(HANDOUT));
    }
}

#[test]
fn coming_back_brings_other_peers() {
    let (mut roster, dialled) = crowd(100, 1);
    let mut rng = Rng::new(1);
    let again = roster.hand_out(100, 4, true, &mut rng);
    assert_eq!(again.len(), 4);
    assert!(again.iter().all(|at| !dialled[100].contains(at)));
}

#[test]
fn who_knows_all_and_lost_them_is_told_again() {
    let (mut roster, _) = crowd(3, 1);
    let mut rng = Rng::new(1);
    assert_eq!(roster.hand_out(3, HANDOUT, false, &mut rng), []);
    assert_eq!(roster.hand_out(3, HANDOUT, true, &mut rng).len(), 3);
    assert_eq!(roster.peer(3).links.len(), 3);
}

#[test]
fn who_lost_its_neighbours_is_given_the_seed() {
    let (mut roster, dialled) = crowd(100, 1);
    let mut rng = Rng::new(1);
    assert!(!dialled[100].contains(&0));
    assert!(!roster.hand_out(99, 5, false, &mut rng).contains(&0));
    assert!(roster.hand_out(100, 5, true, &mut rng).contains(&0));
    for at in 1..100 {
        roster.hand_out(at, 5, true, &mut rng);
    }
    assert_eq!(roster.peer(0).links.len(), SEED_RESCUE);
}

#[test]
fn places_at_the_seed_are_given_back() {
    let (mut roster, _) = crowd(40, 1);
    let mut rng = Rng::new(1);
    assert!(!join(&mut roster, 50, Has::Part, &mut rng).contains(&0));
    let known = roster.peer(0).links[0];
    roster.make_stale(known);
    assert!(join(&mut roster, 51, Has::Part, &mut rng).contains(&0));
}

#[test]
fn late_seed_is_told_of_as_many_leeches_as_may_know_it() {
    let (mut roster, mut rng) = (Roster::default(), Rng::new(1));
    for number in 0..100 {
        join(&mut roster, number, Has::Part, &mut rng);
    }
    let seed = roster.insert(Peer::new(addr(100), [0; 20], Has::Origin));
    assert_eq!(roster.hand_out(seed, 200, false, &mut rng).len(), SEED_KNOWN);
    assert_eq!(roster.hand_out(seed, 200, false, &mut rng).len(), 0);
}

#[test]
fn at_most_half_is_complete_while_leeches_suffice() {
    for (completed_count, leech_count, expect) in
        [(50, 50, 5), (50, 6, 5), (50, 2, 8), (50, 0, 10), (5, 45, 1), (0, 50, 0)]
    {
        let (mut roster, mut rng) = (Roster::default(), Rng::new(1));
        for number in 0..completed_count {
            join(&mut roster, number, Has::Completed, &mut rng);
        }
        for number in 0..leech_count {
            join(&mut roster, 100 + number, Has::Part, &mut rng);
        }
        let handout = join(&mut roster, 200, Has::Part, &mut rng);
        let is_complete = |at: &&u32| roster.peer(**at).has == Has::Completed;
        assert_eq!(handout.len(), HANDOUT);
        assert_eq!(handout.iter().filter(is_complete).count(), expect, "{leech_count} leeches");
    }
}

#[test]
fn complete_peers_are_told_of_leeches_only() {
    let (mut roster, mut rng) = (Roster::default(), Rng::new(1));
    for number in 0..4 {
        join(&mut roster, number, Has::Completed, &mut rng);
    }
    join(&mut roster, 4, Has::Origin, &mut rng);
    join(&mut roster, 5, Has::Part, &mut rng);
    assert_eq!(join(&mut roster, 6, Has::Completed, &mut rng), [5]);
}

#[test]
fn stale_peers_only_fill_up() {
    let (mut roster, _) = crowd(30, 1);
    let mut rng = Rng::new(1);
    for at in 1..=25 {
        roster.make_stale(at);
    }
    let handout = join(&mut roster, 50, Has::Part, &mut rng);
    assert_eq!(handout.len(), HANDOUT);
    assert!((26..=30).all(|fresh| handout.contains(&fresh)));
}

#[test]
fn node_that_comes_back_under_another_port_replaces_itself() {
    let (mut roster, _) = crowd(5, 1);
    let other_port = SocketAddr::new(addr(3).ip(), 9);
    roster.insert(Peer::new(other_port, [0; 20], Has::Part));
    assert!(roster.peer(3).stale);
    assert!(!roster.peer(2).stale);
    let mut roster = Roster::default();
    for port in 1..3 {
        let addr = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
        roster.insert(Peer::new(addr, [0; 20], Has::Part));
    }
    assert!(!roster.peer(0).stale);
}

#[test]
fn families_are_apart_and_loopback_stays_at_home() {
    let check = |from: &str, to: &str, expect| {
        assert_eq!(can_dial(from.parse().unwrap(), to.parse().unwrap()), expect);
    };
    check("10.0.0.1", "10.0.0.2", true);
    check("10.0.0.1", "fd00::1", false);
    check("fd00::1", "10.0.0.1", false);
    check("10.0.0.1", "127.0.0.1", false);
    check("fd00::1", "::1", false);
    check("127.0.0.1", "127.0.0.1", true);
    check("127.0.0.1", "10.0.0.1", true);
}

#[test]
fn same_seed_makes_the_same_graph() {
    assert_eq!(crowd(300, 7).1, crowd(300, 7).1);
    assert_ne!(crowd(300, 7).1, crowd(300, 8).1);
}

fn assert_consistent(roster: &Roster) {
    assert_eq!(roster.by_addr.len(), roster.len());
    for (at, peer) in roster.peers.iter().enumerate() {
        let at = at as u32;
        assert_eq!(roster.find(peer.addr), Some(at));
        assert_eq!(roster.origins.contains(&at), peer.has == Has::Origin);
        assert!(peer.links.len() <= LINKS_KEPT);
        for &link in &peer.links {
            assert_ne!(link, at);
            let back = roster.peer(link).links.iter().filter(|&&back| back == at);
            assert_eq!(back.count(), 1, "links have two ends");
        }
    }
    let complete = roster.peers.iter().filter(|peer| peer.has != Has::Part);
    assert_eq!(roster.complete_count(), complete.count());
}

proptest! {
    #[test]
    fn roster_stays_consistent(steps in prop::collection::vec((0u8..6, 0u32..150, 0u8..3), 0..400), seed: u64) {
        let (mut roster, mut rng) = (Roster::default(), Rng::new(seed));
        for (step, number, has) in steps {
            let has = [Has::Part, Has::Completed, Has::Origin][usize::from(has)];
            match (step, roster.find(addr(number))) {
                (0..=2, None) => drop(join(&mut roster, number, has, &mut rng)),
                (0 | 1, Some(at)) => {
                    let handout = roster.hand_out(at, 50, step == 1, &mut rng);
                    prop_assert!(!handout.contains(&at));
                }
                (2, Some(at)) => roster.set_has(at, has),
                (3, Some(at)) => roster.make_stale(at),
                (4, Some(at)) => drop(roster.remove(at)),
                _ => {}
            }
        }
        assert_consistent(&roster);
    }
}
