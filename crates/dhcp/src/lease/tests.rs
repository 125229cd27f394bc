use super::*;
use crate::testing::{config, ip, mac};

const NOW: Time = Time::from_secs(1_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn subnet() -> Subnet {
    config(60).subnet
}

/// Offers and gives.
fn give(leases: &mut Leases, now: Time, number: u16) -> Option<Ipv4Addr> {
    let address = offer(leases, now, number)?;
    leases.give(now, who(number), address, subnet(), HOUR).unwrap();
    Some(address)
}

fn offer(leases: &mut Leases, now: Time, number: u16) -> Option<Ipv4Addr> {
    leases.offer(now, mac(number), None, subnet()).ok().map(|offer| offer.address)
}

fn who(number: u16) -> Who {
    Who { mac: mac(number), client: number.into() }
}

fn is_free(leases: &Leases) -> usize {
    leases.pool().free_count
}

#[test]
fn a_machine_keeps_its_address() {
    let mut leases = Leases::new(&config(60));
    let address = give(&mut leases, NOW, 1);
    assert!(address.is_some());
    assert_eq!(give(&mut leases, NOW + HOUR, 1), address);
    assert_eq!(give(&mut leases, NOW + 1000 * HOUR, 1), address);
}

#[test]
fn a_server_that_lost_its_memory_gives_the_same_address_again() {
    let address = give(&mut Leases::new(&config(250)), NOW, 7);
    assert_eq!(give(&mut Leases::new(&config(250)), NOW, 7), address);
}

#[test]
fn every_address_is_given_once_and_then_none() {
    let mut leases = Leases::new(&config(60));
    let mut given: Vec<_> = (0..11).filter_map(|n| give(&mut leases, NOW, n)).collect();
    given.sort_unstable();
    assert_eq!(given, (50..=60).map(ip).collect::<Vec<_>>());
    assert_eq!(give(&mut leases, NOW, 11), None);
    assert_eq!(is_free(&leases), 0);
}

#[test]
fn when_none_is_free_the_lease_that_ended_first_is_taken() {
    let mut leases = Leases::new(&config(51));
    let first = give(&mut leases, NOW, 1);
    let second = give(&mut leases, NOW + HOUR / 2, 2);
    let later = NOW + 2 * HOUR;
    assert_eq!(give(&mut leases, later, 3), first);
    assert_eq!(give(&mut leases, later, 4), second);
    assert_eq!(give(&mut leases, later, 1), None);
}

#[test]
fn an_offer_that_nobody_took_is_taken_back_when_it_is_needed() {
    let mut leases = Leases::new(&config(50));
    assert_eq!(offer(&mut leases, NOW, 1), Some(ip(50)));
    assert_eq!(offer(&mut leases, NOW + OFFER_TIME / 2, 2), None);
    assert_eq!(offer(&mut leases, NOW + OFFER_TIME, 2), Some(ip(50)));
}

#[test]
fn a_withdrawn_offer_is_free_at_once_and_a_lease_is_not() {
    let mut leases = Leases::new(&config(50));
    offer(&mut leases, NOW, 1);
    leases.withdraw(mac(1));
    assert_eq!(give(&mut leases, NOW, 2), Some(ip(50)));
    leases.withdraw(mac(2));
    assert_eq!(offer(&mut leases, NOW, 1), None);
}

#[test]
fn a_free_address_that_is_wanted_is_offered() {
    let mut leases = Leases::new(&config(60));
    assert_eq!(
        leases.offer(NOW, mac(1), Some(ip(55)), subnet()).ok().map(|offer| offer.address),
        Some(ip(55))
    );
    let other = leases.offer(NOW, mac(2), Some(ip(55)), subnet()).ok().map(|offer| offer.address);
    assert!(other.is_some() && other != Some(ip(55)));
    let outside = leases.offer(NOW, mac(3), Some(ip(99)), subnet()).ok().map(|offer| offer.address);
    assert!(outside.is_some() && outside != Some(ip(99)));
}

#[test]
fn a_released_address_is_remembered_until_somebody_needs_it() {
    let mut leases = Leases::new(&config(51));
    let first = give(&mut leases, NOW, 1).unwrap();
    assert_eq!(leases.release(NOW, who(2), first), None);
    assert_eq!(leases.release(NOW, who(1), first).map(|lease| lease.until), Some(NOW));
    give(&mut leases, NOW, 2);
    assert_eq!(give(&mut leases, NOW, 1), Some(first));
    leases.release(NOW, who(1), first);
    assert_eq!(give(&mut leases, NOW, 3), Some(first));
}

#[test]
fn asking_again_does_not_shorten_a_lease() {
    let mut leases = Leases::new(&config(50));
    give(&mut leases, NOW, 1);
    offer(&mut leases, NOW, 1);
    assert_eq!(offer(&mut leases, NOW + HOUR / 2, 2), None);
}

#[test]
fn a_lease_of_an_address_that_was_reserved_since_is_forgotten() {
    let mut config = config(51);
    let address = Some(ip(50));
    config.reservations.push(Reservation { mac: mac(9), address, hostname: None });
    let mut leases = Leases::new(&config);
    leases.restore(NOW, Lease { mac: mac(1), address: ip(50), until: NOW + HOUR });
    assert_eq!(leases.iter().count(), 0);
    assert_eq!(give(&mut leases, NOW, 9), address);
}

#[test]
fn a_reservation_is_kept_for_its_machine() {
    let mut config = config(51);
    for (number, address) in [(9, ip(50)), (8, ip(200))] {
        let mac = mac(number);
        config.reservations.push(Reservation { mac, address: Some(address), hostname: None });
    }
    let mut leases = Leases::new(&config);
    assert_eq!(give(&mut leases, NOW, 1), Some(ip(51)));
    assert_eq!(give(&mut leases, NOW, 2), None);
    assert_eq!(give(&mut leases, NOW, 9), Some(ip(50)));
    assert_eq!(give(&mut leases, NOW, 8), Some(ip(200)));
    let mut refusal = |number, address| leases.give(NOW, who(number), address, subnet(), HOUR);
    assert_eq!(refusal(2, ip(50)), Err(Refusal::Reserved));
    assert_eq!(refusal(9, ip(51)), Err(Refusal::HasReserved(ip(50))));
    assert_eq!(refusal(2, ip(99)), Err(Refusal::NotOurs));
    assert_eq!(refusal(2, ip(51)), Err(Refusal::Held(mac(1))));
}

#[test]
fn neither_the_servers_nor_the_routers_address_is_given() {
    let mut config = config(51);
    config.address = ip(50);
    config.ranges[0].router = Some(ip(51));
    let mut leases = Leases::new(&config);
    assert_eq!(offer(&mut leases, NOW, 1), None);
    let refused = leases.give(NOW, who(1), ip(50), subnet(), HOUR);
    assert_eq!(refused, Err(Refusal::NotOurs));
}

#[test]
fn a_machine_that_moves_to_another_network_leaves_its_address() {
    let mut config = config(50);
    let there = Subnet::of(Ipv4Addr::new(10, 1, 0, 0), 24);
    let far = Ipv4Addr::new(10, 1, 0, 50);
    config.ranges.push(Range { first: far, last: far, subnet: there, router: None });
    let mut leases = Leases::new(&config);
    assert_eq!(give(&mut leases, NOW, 1), Some(ip(50)));
    assert_eq!(leases.offer(NOW, mac(1), None, there).map(|offer| offer.address), Ok(far));
    assert_eq!(give(&mut leases, NOW, 2), Some(ip(50)));
}

#[test]
fn leases_survive_a_restart_as_far_as_they_fit() {
    let mut leases = Leases::new(&config(60));
    assert!((0..8).all(|n| give(&mut leases, NOW, n).is_some()));
    let before: Vec<Lease> = leases.iter().collect();
    let mut smaller = Leases::new(&config(54));
    before.iter().for_each(|lease| smaller.restore(NOW, *lease));
    let kept: Vec<Lease> = before.into_iter().filter(|lease| lease.address <= ip(54)).collect();
    assert!(!kept.is_empty());
    assert_eq!(smaller.iter().collect::<Vec<_>>(), kept);
    assert_eq!(is_free(&smaller), 5 - kept.len());
}

/// A table in which the machines with these numbers are the lab's, the second with that address.
fn named(last: u8, names: &[(u16, Option<u8>)]) -> Leases {
    let mut config = config(last);
    config.reservations = names
        .iter()
        .map(|(number, address)| Reservation {
            mac: mac(*number),
            address: address.map(ip),
            hostname: None,
        })
        .collect();
    Leases::new(&config)
}

#[test]
fn a_stranger_has_a_short_lease_until_it_renews() {
    let mut leases = named(60, &[(9, None)]);
    let term = |leases: &Leases, now, number, address| leases.term(now, mac(number), address, HOUR);
    let address = give(&mut leases, NOW, 1).unwrap();
    assert_eq!(term(&leases, NOW, 1, address), FIRST_LEASE);
    assert_eq!(term(&leases, NOW + Duration::from_secs(9), 1, address), FIRST_LEASE, "again");
    assert_eq!(term(&leases, NOW + FIRST_LEASE / 2, 1, address), HOUR, "renewed");
    let other = give(&mut leases, NOW, 2).unwrap();
    leases.used(mac(2));
    assert_eq!(term(&leases, NOW, 2, other), HOUR, "it fetched something");
    let of_lab = give(&mut leases, NOW, 9).unwrap();
    assert_eq!(term(&leases, NOW, 9, of_lab), HOUR);

    // A restart makes no acquaintance of a stranger.
    let mut again = named(60, &[(9, None)]);
    again.restore(NOW, Lease { mac: mac(1), address, until: NOW + FIRST_LEASE });
    assert_eq!(term(&again, NOW, 1, address), FIRST_LEASE, "of before the restart");
    assert_eq!(term(&again, NOW + FIRST_LEASE / 2, 1, address), HOUR, "renewed after it");
}

#[test]
fn a_node_of_the_lab_takes_the_address_that_a_stranger_misses_least() {
    let mut leases = named(53, &[(100, None), (101, None), (102, None), (103, None), (104, None)]);
    let older = give(&mut leases, NOW, 1).unwrap();
    let later = NOW + FIRST_LEASE / 2;
    let younger = give(&mut leases, later, 2).unwrap();
    for number in [1, 2] {
        leases.used(mac(number));
        give(&mut leases, later, number).unwrap();
    }
    let unused = give(&mut leases, later, 3).unwrap();
    let offered = offer(&mut leases, later, 4).unwrap();
    assert_eq!(give(&mut leases, later, 100), Some(offered));
    assert_eq!(give(&mut leases, later, 101), Some(unused));
    assert_eq!(give(&mut leases, later, 102), Some(younger));
    let last = leases.offer(later, mac(103), None, subnet()).unwrap();
    assert_eq!((last.address, last.displaced), (older, Some(mac(1))));
    leases.give(later, who(103), older, subnet(), HOUR).unwrap();
    assert_eq!(leases.offer(later, mac(104), None, subnet()), Err(NoAddress::Taken));
    assert_eq!(leases.give(later, who(1), older, subnet(), HOUR), Err(Refusal::Held(mac(103))));
}

#[test]
fn the_last_addresses_are_not_for_strangers() {
    // 201 addresses, of which three are kept.
    let names = [(1000, None), (1001, None), (1002, None), (1003, None), (1004, Some(20))];
    let mut leases = named(250, &names);
    assert!((0..198).all(|number| give(&mut leases, NOW, number).is_some()));
    assert_eq!(leases.offer(NOW, mac(198), None, subnet()), Err(NoAddress::Kept));
    let free = *leases.free.first().unwrap();
    assert_eq!(leases.give(NOW, who(198), free, subnet(), HOUR), Err(Refusal::Kept));
    let of_lab = leases.offer(NOW, mac(1000), None, subnet()).unwrap();
    assert_eq!(of_lab.displaced, None, "one that was kept");
    for number in 1001..1004 {
        assert!(offer(&mut leases, NOW, number).is_some());
    }
    // A first lease that nobody renewed makes room.
    let later = NOW + HOUR;
    assert!(give(&mut leases, later, 198).is_some());
}

mod declines {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn only_who_was_just_given_an_address_can_decline_it() {
        let mut leases = Leases::new(&config(50));
        give(&mut leases, NOW, 1);
        let mut decline = |now, who| leases.decline(now, who, ip(50), true);
        assert_eq!(decline(NOW, who(2)), Decline::NotBelieved);
        let other_name = Who { client: 77, ..who(1) };
        assert_eq!(decline(NOW, other_name), Decline::NotBelieved);
        let late = NOW + DECLINE_WITHIN + Duration::from_secs(1);
        assert_eq!(decline(late, who(1)), Decline::NotBelieved);
        assert_eq!(decline(NOW + DECLINE_WITHIN, who(1)), Decline::Look);
    }

    #[test]
    fn an_address_at_which_nobody_else_answers_is_good() {
        for (user, expect) in [(None, Looked::Unused), (Some(mac(1)), Looked::Kept)] {
            let mut leases = Leases::new(&config(50));
            give(&mut leases, NOW, 1);
            leases.decline(NOW, who(1), ip(50), true);
            assert_eq!(offer(&mut leases, NOW + SOON, 2), None, "while it is looked");
            assert_eq!(leases.looked(NOW + SOON, ip(50), user), expect);
            assert_eq!(leases.iter().count(), usize::from(user.is_some()));
            assert_eq!(offer(&mut leases, NOW + SOON, 1), Some(ip(50)));
        }
    }

    #[test]
    fn an_address_at_which_another_answers_is_left_alone_for_a_while() {
        let mut leases = Leases::new(&config(50));
        give(&mut leases, NOW, 1);
        leases.decline(NOW, who(1), ip(50), true);
        let found = leases.looked(NOW + SOON, ip(50), Some(mac(77)));
        assert_eq!(found, Looked::Conflict { mac: mac(1) });
        assert_eq!(offer(&mut leases, NOW + SOON, 1), None);
        let refused = leases.give(NOW + SOON, who(1), ip(50), subnet(), HOUR);
        assert_eq!(refused, Err(Refusal::Declined));
        assert_eq!(give(&mut leases, NOW + SOON + DECLINE_TIME, 1), Some(ip(50)));
    }

    #[test]
    fn a_look_that_comes_to_no_end_ends_the_doubt() {
        let mut leases = Leases::new(&config(50));
        give(&mut leases, NOW, 1);
        leases.decline(NOW, who(1), ip(50), true);
        assert_eq!(give(&mut leases, NOW + DOUBT_TIME, 2), Some(ip(50)));
        assert_eq!(leases.looked(NOW + DOUBT_TIME, ip(50), None), Looked::NotNeeded);
    }

    #[test]
    fn a_node_whose_reserved_address_is_used_by_another_has_one_meanwhile() {
        let mut leases = named(51, &[(9, Some(50))]);
        assert_eq!(give(&mut leases, NOW, 1), Some(ip(51)), "a stranger has the only other one");
        assert_eq!(give(&mut leases, NOW, 9), Some(ip(50)));
        assert_eq!(leases.decline(NOW, who(9), ip(50), true), Decline::Look);
        assert_eq!(give(&mut leases, NOW, 9), Some(ip(51)), "while it is looked");
        assert_eq!(
            leases.looked(NOW + SOON, ip(50), Some(mac(77))),
            Looked::Conflict { mac: mac(9) }
        );
        let renewed = leases.give(NOW + HOUR / 2, who(9), ip(51), subnet(), HOUR);
        assert_eq!(renewed.map(|lease| lease.address), Ok(ip(51)));
        assert_eq!(offer(&mut leases, NOW + HOUR, 1), None);
        assert_eq!(give(&mut leases, NOW + HOUR, 9), Some(ip(50)), "when it asks anew");
        assert_eq!(give(&mut leases, NOW + HOUR, 1), Some(ip(51)));
    }

    #[test]
    fn who_asks_again_for_what_it_declined_has_it() {
        let mut leases = named(50, &[(9, Some(200))]);
        give(&mut leases, NOW, 9);
        leases.decline(NOW, who(9), ip(200), true);
        let lease = leases.give(NOW + SOON, who(9), ip(200), subnet(), HOUR);
        assert_eq!(lease.map(|lease| lease.address), Ok(ip(200)));
        assert_eq!(leases.looked(NOW + SOON, ip(200), Some(mac(77))), Looked::NotNeeded);
    }

    #[test]
    fn what_this_server_cannot_see_takes_away_no_more_than_an_eighth() {
        let mut leases = Leases::new(&config(113));
        for number in 0..200 {
            let address = offer(&mut leases, NOW, number).expect("there are always some");
            leases.give(NOW, who(number), address, subnet(), HOUR).unwrap();
            assert_eq!(leases.decline(NOW, who(number), address, false), Decline::LeftAlone);
        }
        assert_eq!(leases.pool().declined_count, 64 / 8);
        // One machine alone, over and over.
        let mut count = 0;
        while let Some(address) = offer(&mut leases, NOW, 1000) {
            leases.give(NOW, who(1000), address, subnet(), HOUR).unwrap();
            if leases.decline(NOW, who(1000), address, false) == Decline::NotBelieved {
                break;
            }
            count += 1;
        }
        assert_eq!(count, DECLINES_MAX);
    }

    #[test]
    fn what_it_can_see_takes_away_no_more_than_half() {
        let mut leases = Leases::new(&config(113));
        for number in 0..200 {
            let address = give(&mut leases, NOW, number).expect("there are always some");
            leases.decline(NOW, who(number), address, true);
            leases.looked(NOW, address, Some(mac(5000)));
        }
        assert_eq!(leases.pool().declined_count, 64 / 2);
    }
}

#[test]
fn another_configuration_leaves_everything_that_fits_as_it_is() {
    let mut leases = Leases::new(&config(60));
    let first = give(&mut leases, NOW, 1).unwrap();
    let second = give(&mut leases, NOW, 2).unwrap();
    leases.decline(NOW, who(2), second, true);
    leases.looked(NOW, second, Some(mac(77)));
    let mut after = leases.reconfigured(&config(61));
    assert_eq!(after.pool().declined_count, 1);
    assert_eq!(after.decline(NOW, who(1), first, true), Decline::Look, "it was just given");
}

/// Whatever machines do, every address is in exactly one place, and none that the lab names goes
/// without one.
#[test]
fn no_address_is_lost_or_given_twice() {
    let mut rng = fastrand::Rng::with_seed(1);
    let names = [(0, None), (1, None), (2, Some(52)), (3, Some(200))];
    let mut leases = named(57, &names);
    let mut now = NOW;
    for _ in 0..40_000 {
        now += Duration::from_secs(rng.u64(0..20));
        let number = rng.u16(0..14);
        let (machine, address) = (mac(number), ip(rng.u8(49..59)));
        match rng.u8(0..8) {
            0 | 1 => {
                let offered = leases.offer(now, machine, Some(address), subnet());
                let has_room = leases.pool().declined_count <= 3;
                assert!(number > 3 || !has_room || offered.is_ok(), "{number}: {offered:?}");
            }
            2 => _ = leases.give(now, who(number), address, subnet(), HOUR / 60),
            3 => _ = leases.release(now, who(number), address),
            4 => _ = leases.decline(now, who(number), address, rng.bool()),
            5 => _ = leases.looked(now, address, rng.bool().then(|| mac(rng.u16(0..14)))),
            6 => leases.used(machine),
            _ => leases.withdraw(machine),
        }
        check_places(&leases, 7);
    }
}

fn check_places(leases: &Leases, address_count: usize) {
    let pool = leases.pool();
    let held =
        pool.unconfirmed_count + pool.confirmed_count + pool.named_count + pool.declined_count;
    assert_eq!((pool.address_count, pool.free_count + held), (address_count, address_count));
    let machines = leases.holders.values().filter(|h| matches!(h, Holder::Machine(_)));
    assert_eq!(machines.count(), leases.holdings.len());
    for (machine, held) in &leases.holdings {
        assert!(matches!(leases.holders[&held.address], Holder::Machine(mac) if mac == *machine));
    }
}
