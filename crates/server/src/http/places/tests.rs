use proptest::prelude::*;

use super::*;

const STRANGER: Rank = Rank::Of(Standing::Stranger);
const LEASED: Rank = Rank::Of(Standing::Leased);
const NAMED: Rank = Rank::Of(Standing::Named);

/// A table for a test's eyes.
const FEW: Bounds = Bounds { all: 12, strangers: 6, of_network: 4, of_address: 3, held_len: 1_000 };

fn address(network: u8, host: u8) -> IpAddr {
    IpAddr::from([10, 99, network, host])
}

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(bits.into())
}

/// 64 strangers of one card with 64 connections each, which read 12 kB/s.
fn attacked(now_s: f64) -> Places<u32> {
    let mut places = Places::new(BOUNDS);
    for number in 0..64 * 64 {
        let entry = places.enter(now_s, address(66, (number % 64) as u8), STRANGER, number);
        if let Some(id) = entry.id {
            places.moved(now_s, id, 60_000);
        }
    }
    places
}

#[test]
fn a_card_with_64_addresses_keeps_nobody_out() {
    let mut places = attacked(0.0);
    assert_eq!(places.count(), BOUNDS.of_network);
    for rank in [LEASED, NAMED, Rank::Own, STRANGER] {
        let entry = places.enter(1.0, address(5, 5), rank, 0);
        assert!(entry.id.is_some() && entry.displaced.is_empty(), "{rank:?}");
    }
}

#[test]
fn strangers_of_many_networks_leave_most_places_to_nodes() {
    let mut places = Places::new(BOUNDS);
    for number in 0..BOUNDS.all as u32 * 2 {
        places.enter(0.0, v4(0x0a00_0000 + (number << 8)), STRANGER, number);
    }
    assert_eq!(places.count(), BOUNDS.strangers);
    for number in 0..(BOUNDS.all - BOUNDS.strangers) as u32 {
        let entry = places.enter(1.0, v4(0x0b00_0000 + number), LEASED, number);
        assert!(entry.id.is_some() && entry.displaced.is_empty(), "{number}");
    }
    // From here on it is strangers who go, then nodes that the lab does not name.
    for number in 0..BOUNDS.strangers as u32 {
        let entry = places.enter(1.0, v4(0x0c00_0000 + number), NAMED, number);
        assert_eq!(entry.displaced.len(), 1, "{number}");
    }
    assert_eq!(places.stranger_count, 0);
    assert!(places.enter(1.0, address(0, 1), STRANGER, 0).id.is_none());
    assert!(places.enter(1.0, address(0, 1), Rank::Own, 0).id.is_some());
}

#[test]
fn a_stranger_displaces_the_one_that_has_done_nothing_for_longest() {
    let mut places = Places::new(FEW);
    for host in 0..4 {
        assert!(places.enter(f64::from(host), address(0, host), STRANGER, host).id.is_some());
    }
    let entry = places.enter(30.0, address(0, 9), STRANGER, 9);
    assert!(entry.id.is_some());
    assert_eq!(entry.displaced, [0]);
}

#[test]
fn a_fast_download_is_never_cut_for_a_slow_one() {
    let mut places = Places::new(FEW);
    let fast: Vec<Id> =
        (0..2).filter_map(|host| places.enter(0.0, address(0, host), STRANGER, host).id).collect();
    let mut displaced = vec![];
    for second in 0..300 {
        let now_s = f64::from(second);
        for &id in &fast {
            places.moved(now_s, id, 200_000);
        }
        // Who comes in between reads 12 kB in its first second, and then nothing.
        let entry = places.enter(now_s, address(0, 100), STRANGER, 100);
        places.moved(now_s, entry.id.unwrap(), 12_000);
        displaced.extend(entry.displaced);
    }
    assert!(displaced.len() > 200 && displaced.iter().all(|&host| host == 100), "{displaced:?}");
}

#[test]
fn who_comes_is_refused_only_if_all_who_might_go_move_more() {
    let mut places = Places::new(FEW);
    for number in 0..FEW.of_address as u8 {
        let id = places.enter(0.0, address(0, 1), LEASED, number).id.unwrap();
        places.moved(1.0, id, 10 << 20);
    }
    assert!(places.enter(2.0, address(0, 1), LEASED, 9).id.is_none());
    // A minute later they have slowed down.
    assert_eq!(places.enter(62.0, address(0, 1), LEASED, 9).displaced, [0]);
}

#[test]
fn an_idle_node_stays_when_strangers_come() {
    let mut places = Places::new(FEW);
    places.enter(0.0, address(0, 1), LEASED, 1);
    for number in 0..100 {
        let entry = places.enter(60.0, address(number, 2), STRANGER, 2);
        assert!(entry.displaced.iter().all(|&who| who == 2));
    }
}

#[test]
fn who_logs_in_is_no_stranger_any_more() {
    let mut places = Places::new(FEW);
    let id = places.enter(0.0, address(0, 1), STRANGER, 1).id.unwrap();
    places.raise(id, Rank::Trusted);
    places.raise(id, STRANGER);
    assert_eq!((places.stranger_count, places.places[&id].rank), (0, Rank::Trusted));
    places.leave(id);
    assert_eq!((places.stranger_count, places.of_network.len()), (0, 0));
}

#[test]
fn answers_that_nobody_reads_give_way_to_those_of_others() {
    let mut places = Places::new(FEW);
    let mut enter = |host, rank| places.enter(0.0, address(0, host), rank, host).id.unwrap();
    let (first, second, node) = (enter(1, STRANGER), enter(2, STRANGER), enter(3, LEASED));
    places.moved(1.0, second, 100);
    assert!(places.hold(first, 500).is_empty());
    assert!(places.hold(second, 500).is_empty());
    assert_eq!(places.hold(node, 400), [1]);
    places.release(node, 400);
    assert_eq!(places.hold(node, 900), [2]);
    // A stranger's own answer is the one that goes if only nodes have others.
    let third = places.enter(1.0, address(0, 4), STRANGER, 4).id.unwrap();
    assert_eq!(places.hold(third, 200), [4]);
    places.release(third, 200);
    assert_eq!(places.held_len, 900);
}

#[test]
fn networks_are_those_of_one_machine_or_room() {
    let network = |text: &str| Network::of(text.parse().unwrap()).to_string();
    assert_eq!(network("10.99.66.70"), "10.99.66.0/24");
    assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enter(u8, u8, u8),
    Leave(usize),
    Moved(usize, usize),
    Hold(usize, usize),
    Release(usize, usize),
    Raise(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u8, 0..4_u8, 0..5_u8).prop_map(|(net, host, rank)| Step::Enter(net, host, rank)),
        1 => any::<usize>().prop_map(Step::Leave),
        2 => (any::<usize>(), 0..5_000_000_usize).prop_map(|(who, len)| Step::Moved(who, len)),
        1 => (any::<usize>(), 0..700_usize).prop_map(|(who, len)| Step::Hold(who, len)),
        1 => (any::<usize>(), 0..700_usize).prop_map(|(who, len)| Step::Release(who, len)),
        1 => any::<usize>().prop_map(Step::Raise),
    ]
}

proptest! {
    #[test]
    fn no_bound_is_ever_passed_and_nobody_goes_for_who_is_less(
        steps in prop::collection::vec((step(), 0.0..20.0_f64), 1..120),
    ) {
        let ranks = [STRANGER, LEASED, NAMED, Rank::Trusted, Rank::Own];
        let mut places = Places::new(FEW);
        let mut ranked = BTreeMap::new();
        let mut now_s = 0.0;
        let mut next = 0;
        for (step, past_s) in steps {
            now_s += past_s;
            let ids: Vec<Id> = places.places.keys().copied().collect();
            let pick = |which: usize| ids.get(which % ids.len().max(1)).copied();
            match step {
                Step::Enter(net, host, rank) => {
                    let rank = ranks[usize::from(rank)];
                    let entry = places.enter(now_s, address(net, host), rank, next);
                    for who in &entry.displaced {
                        prop_assert!(ranked[who] <= rank);
                    }
                    ranked.insert(next, rank);
                    next += 1;
                }
                Step::Leave(which) => drop(pick(which).map(|id| places.leave(id))),
                Step::Moved(which, len) => {
                    pick(which).into_iter().for_each(|id| places.moved(now_s, id, len));
                }
                Step::Hold(which, len) => drop(pick(which).map(|id| places.hold(id, len))),
                Step::Release(which, len) => {
                    pick(which).into_iter().for_each(|id| places.release(id, len));
                }
                Step::Raise(which) => {
                    if let Some(id) = pick(which) {
                        places.raise(id, Rank::Trusted);
                        let place = &places.places[&id];
                        ranked.insert(place.connection, place.rank);
                    }
                }
            }
            let all = places.places.values();
            let strangers: Vec<_> = all.clone().filter(|one| one.rank.is_stranger()).collect();
            prop_assert!(places.count() <= FEW.all);
            prop_assert!(strangers.len() <= FEW.strangers);
            prop_assert_eq!(strangers.len(), places.stranger_count);
            prop_assert_eq!(strangers.len(), places.of_network.values().sum::<usize>());
            prop_assert!(places.of_network.values().all(|&count| count <= FEW.of_network));
            prop_assert!(places.of_address.values().all(|&count| count <= FEW.of_address));
            prop_assert_eq!(places.count(), places.of_address.values().sum::<usize>());
            prop_assert!(places.held_len <= FEW.held_len);
            prop_assert_eq!(all.map(|one| one.held_len).sum::<usize>(), places.held_len);
        }
    }
}
