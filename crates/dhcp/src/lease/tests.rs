use super::*;
use crate::testing::{config, ip, mac};

const NOW: Time = Time::from_secs(1_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn subnet() -> Subnet {
    config(60).subnet
}

/// Offers and gives.
fn give(leases: &mut Leases, now: Time, number: u16) -> Option<Ipv4Addr> {
    let address = leases.offer(now, mac(number), None, subnet())?;
    leases.give(now, mac(number), address, subnet(), now + HOUR).unwrap();
    Some(address)
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
    assert_eq!(leases.free_count(), 0);
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
    assert_eq!(leases.offer(NOW, mac(1), None, subnet()), Some(ip(50)));
    assert_eq!(leases.offer(NOW + OFFER_TIME / 2, mac(2), None, subnet()), None);
    assert_eq!(leases.offer(NOW + OFFER_TIME, mac(2), None, subnet()), Some(ip(50)));
}

#[test]
fn a_withdrawn_offer_is_free_at_once_and_a_lease_is_not() {
    let mut leases = Leases::new(&config(50));
    leases.offer(NOW, mac(1), None, subnet());
    leases.withdraw(mac(1));
    assert_eq!(give(&mut leases, NOW, 2), Some(ip(50)));
    leases.withdraw(mac(2));
    assert_eq!(leases.offer(NOW, mac(1), None, subnet()), None);
}

#[test]
fn a_free_address_that_is_wanted_is_offered() {
    let mut leases = Leases::new(&config(60));
    assert_eq!(leases.offer(NOW, mac(1), Some(ip(55)), subnet()), Some(ip(55)));
    let other = leases.offer(NOW, mac(2), Some(ip(55)), subnet());
    assert!(other.is_some() && other != Some(ip(55)));
    let outside = leases.offer(NOW, mac(3), Some(ip(99)), subnet());
    assert!(outside.is_some() && outside != Some(ip(99)));
}

#[test]
fn a_declined_address_is_left_alone_for_a_while() {
    let mut leases = Leases::new(&config(50));
    give(&mut leases, NOW, 1);
    assert!(!leases.decline(NOW, mac(2), ip(50)), "it is not the other's to decline");
    assert!(leases.decline(NOW, mac(1), ip(50)));
    assert_eq!(leases.offer(NOW, mac(1), None, subnet()), None);
    let refused = leases.give(NOW, mac(1), ip(50), subnet(), NOW + HOUR);
    assert_eq!(refused, Err(Refusal::Declined));
    assert_eq!(give(&mut leases, NOW + DECLINE_TIME, 1), Some(ip(50)));
}

#[test]
fn a_released_address_is_remembered_until_somebody_needs_it() {
    let mut leases = Leases::new(&config(51));
    let first = give(&mut leases, NOW, 1).unwrap();
    assert_eq!(leases.release(NOW, mac(2), first), None);
    assert_eq!(leases.release(NOW, mac(1), first).map(|lease| lease.until), Some(NOW));
    give(&mut leases, NOW, 2);
    assert_eq!(give(&mut leases, NOW, 1), Some(first));
    leases.release(NOW, mac(1), first);
    assert_eq!(give(&mut leases, NOW, 3), Some(first));
}

#[test]
fn asking_again_does_not_shorten_a_lease() {
    let mut leases = Leases::new(&config(50));
    give(&mut leases, NOW, 1);
    leases.offer(NOW, mac(1), None, subnet());
    assert_eq!(leases.offer(NOW + HOUR / 2, mac(2), None, subnet()), None);
}

#[test]
fn a_lease_of_an_address_that_was_reserved_since_is_forgotten() {
    let mut config = config(51);
    let address = Some(ip(50));
    config.reservations.push(Reservation { mac: mac(9), address, hostname: None });
    let mut leases = Leases::new(&config);
    leases.restore(Lease { mac: mac(1), address: ip(50), until: NOW + HOUR });
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
    let mut refusal = |number, address| leases.give(NOW, mac(number), address, subnet(), NOW);
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
    assert_eq!(leases.offer(NOW, mac(1), None, subnet()), None);
    let refused = leases.give(NOW, mac(1), ip(50), subnet(), NOW);
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
    assert_eq!(leases.offer(NOW, mac(1), None, there), Some(far));
    assert_eq!(give(&mut leases, NOW, 2), Some(ip(50)));
}

#[test]
fn leases_survive_a_restart_as_far_as_they_fit() {
    let mut leases = Leases::new(&config(60));
    assert!((0..8).all(|n| give(&mut leases, NOW, n).is_some()));
    let before: Vec<Lease> = leases.iter().collect();
    let mut smaller = Leases::new(&config(54));
    before.iter().for_each(|lease| smaller.restore(*lease));
    let kept: Vec<Lease> = before.into_iter().filter(|lease| lease.address <= ip(54)).collect();
    assert!(!kept.is_empty());
    assert_eq!(smaller.iter().collect::<Vec<_>>(), kept);
    assert_eq!(smaller.free_count(), 5 - kept.len());
}

/// Whatever machines do, every address is in exactly one place.
#[test]
fn no_address_is_lost_or_given_twice() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut leases = Leases::new(&config(57));
    let mut now = NOW;
    for _ in 0..20_000 {
        now += Duration::from_secs(rng.u64(0..20));
        let machine = mac(rng.u16(0..12));
        let address = ip(rng.u8(49..59));
        match rng.u8(0..6) {
            0 | 1 => _ = leases.offer(now, machine, Some(address), subnet()),
            2 => _ = leases.give(now, machine, address, subnet(), now + HOUR / 60),
            3 => _ = leases.release(now, machine, address),
            4 => _ = leases.decline(now, machine, address),
            _ => leases.withdraw(machine),
        }
        assert_eq!(leases.free.len() + leases.holders.len(), 8);
        assert_eq!(leases.ends.len(), leases.holders.len());
        let machines = leases.holders.values().filter(|h| matches!(h, Holder::Machine(_)));
        assert_eq!(machines.count(), leases.holdings.len());
        for (machine, held) in &leases.holdings {
            assert_eq!(leases.holders[&held.address], Holder::Machine(*machine));
            assert!(leases.ends.contains(&(held.until, held.address)));
        }
    }
}
