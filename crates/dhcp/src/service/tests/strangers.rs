//! What strangers can do to a pool.

use super::*;
use crate::drain;
use crate::lease::{DECLINE_WITHIN, Pool};

/// A lab whose nodes 60,000 and on are named, the first two with reserved addresses.
fn room(node_count: u16) -> Lab {
    let mut config = config(250);
    config.reservations = (0..node_count)
        .map(|node| Reservation {
            mac: mac(60_000 + node),
            address: [Some(ip(20)), Some(ip(21))].get(usize::from(node)).copied().flatten(),
            hostname: None,
        })
        .collect();
    Lab::new(config)
}

fn lease(lab: &mut Lab, number: u16) -> Option<Ipv4Addr> {
    let (offer, _) = sent(&lab.ask(&Ask::discover(number)))?;
    let (ack, _) = sent(&lab.ask(&Ask::select(number, offer.yiaddr)))?;
    (ack.kind == MessageType::Ack).then_some(ack.yiaddr)
}

fn pool(lab: &Lab) -> Pool {
    lab.service.pool()
}

#[test]
fn five_thousand_invented_machines_keep_no_node_from_its_address() {
    let mut lab = room(40);
    let mut strangers = 0;
    for number in 0..5_000 {
        strangers += usize::from(lease(&mut lab, number).is_some());
        if number % 125 == 124 {
            let node = 60_000 + number / 125;
            let address = lease(&mut lab, node).unwrap_or_else(|| panic!("{node} has none"));
            assert!(node > 60_001 || address == ip(20 + u8::try_from(node - 60_000).unwrap()));
        }
        lab.now += Duration::from_millis(1);
    }
    assert_eq!(strangers, 198, "201 but for the share that is kept");
    assert_eq!(pool(&lab).named_count, 38);
}

#[test]
fn with_options_as_long_as_they_go_a_stranger_is_one_entry() {
    let mut lab = room(2);
    for number in 0..2_000_u16 {
        let long = [&number.to_be_bytes()[..], &[7; 250]].concat();
        let ask = |ask: Ask| ask.option(61, &long).option(82, &long).option(12, &long);
        if let Some((offer, _)) = sent(&lab.ask(&ask(Ask::discover(number)))) {
            lab.ask(&ask(Ask::select(number, offer.yiaddr)));
        }
    }
    assert_eq!(lab.service.leases().count(), 201);
    assert!(lease(&mut lab, 60_000).is_some() && lease(&mut lab, 60_001).is_some());
}

#[test]
fn invented_machines_that_do_not_come_back_are_gone_within_minutes() {
    let mut lab = room(0);
    for number in 0..1_000 {
        lease(&mut lab, number);
    }
    assert_eq!(lease(&mut lab, 2_000), None);
    lab.now += FIRST_LEASE;
    for number in 2_000..2_190 {
        assert!(lease(&mut lab, number).is_some(), "{number}");
    }
}

#[test]
fn offers_that_nobody_takes_are_gone_within_seconds() {
    let mut lab = room(1);
    for number in 0..1_000 {
        lab.ask(&Ask::discover(number));
    }
    assert!(lease(&mut lab, 60_000).is_some());
    assert_eq!(lease(&mut lab, 2_000), None);
    lab.now += crate::lease::OFFER_TIME;
    assert!(lease(&mut lab, 2_000).is_some());
}

#[test]
fn a_room_of_new_nodes_that_is_switched_on_at_once_has_its_addresses() {
    let mut config = config(60);
    let last = Ipv4Addr::new(10, 0, 4, 46);
    config.subnet = Subnet::of(SERVER, 16);
    config.ranges[0] = Range { last, subnet: config.subnet, ..config.ranges[0] };
    let mut lab = Lab::new(config);
    assert_eq!(pool(&lab).address_count, 1020, "all but the router's");
    for number in 0..1_000 {
        assert!(lease(&mut lab, number).is_some(), "{number}");
    }
}

#[test]
fn a_laptop_has_the_whole_lease_once_it_has_renewed() {
    let mut lab = room(0);
    let address = lease(&mut lab, 1).unwrap();
    lab.now += FIRST_LEASE / 2;
    let (ack, _) = lab.answer(&Ask::renew(1, address));
    assert_eq!(ack.option(51), Some(&3600_u32.to_be_bytes()[..]));
    // As has a machine that was seen to fetch something, when it asks anew a moment later.
    lease(&mut lab, 2).unwrap();
    lab.input(Input::Used(mac(2)));
    let (offer, _) = lab.answer(&Ask::discover(2));
    assert_eq!(offer.option(51), Some(&3600_u32.to_be_bytes()[..]));
}

#[test]
fn a_pool_that_is_being_emptied_is_said_once() {
    let mut lab = room(3);
    let mut said = vec![];
    for number in 0..5_000 {
        let outputs = lab.ask(&Ask::discover(number));
        let of_pool =
            |event: &&&Event| matches!(event, Event::Draining { .. } | Event::Exhausted { .. });
        said.extend(events(&outputs).iter().filter(of_pool).map(|event| (*event).clone()));
        if let Some((offer, _)) = sent(&outputs) {
            lab.ask(&Ask::select(number, offer.yiaddr));
        }
        lab.now += Duration::from_millis(1);
    }
    let [Event::Draining { count: 176, within, .. }, Event::Exhausted { why, .. }] = said[..]
    else {
        panic!("{said:?}");
    };
    assert_eq!((within, why), (Duration::from_millis(175), NoAddress::Kept), "one is kept");
    assert!(lab.service.drained(lab.now).is_some());
    assert!(lab.service.drained(lab.now + drain::AGAIN).is_none());
}

fn decline(number: u16, address: Ipv4Addr) -> Ask {
    Ask::new(MessageType::Decline, number)
        .option(50, &address.octets())
        .option(54, &SERVER.octets())
}

#[test]
fn a_decline_of_another_or_long_after_takes_nothing_away() {
    let mut lab = room(1);
    lab.ask(&Ask::discover(60_000).option(61, b"its own"));
    lab.ask(&Ask::select(60_000, ip(20)).option(61, b"its own"));
    let disbelieved = Event::Disbelieved { mac: mac(60_000), address: ip(20) };
    let in_its_name = decline(60_000, ip(20));
    assert_eq!(events(&lab.ask(&in_its_name)), [&disbelieved], "under another identifier");
    lab.now += DECLINE_WITHIN + SECOND;
    let late = in_its_name.option(61, b"its own");
    assert_eq!(events(&lab.ask(&late)), [&disbelieved], "long after");
    assert_eq!(lease(&mut lab, 60_000), Some(ip(20)));
    // Just given again, and in its name: this server sees that nobody else has the address.
    assert!(lab.ask(&decline(60_000, ip(20))).contains(&Output::Look(ip(20))));
    lab.input(Input::Looked { address: ip(20), user: None });
    assert_eq!(lease(&mut lab, 60_000), Some(ip(20)));
}

#[test]
fn a_conflict_of_a_reserved_address_is_told_and_the_node_has_another() {
    let mut lab = room(1);
    lease(&mut lab, 60_000);
    lab.ask(&decline(60_000, ip(20)));
    let found = lab.input(Input::Looked { address: ip(20), user: Some(mac(7)) });
    let (mac, user) = (mac(60_000), mac(7));
    let conflict = Event::Conflict { mac, address: ip(20), user, is_reserved: true };
    assert!(events(&found).contains(&&conflict));
    let other = lease(&mut lab, 60_000).unwrap();
    assert!(other >= ip(50), "{other}");
    lab.now += crate::lease::DECLINE_TIME;
    assert_eq!(lease(&mut lab, 60_000), Some(ip(20)), "it is tried again");
}

#[test]
fn a_loop_of_declines_does_not_empty_the_pool() {
    let mut lab = room(1);
    for number in 0..2_000 {
        let address = lease(&mut lab, number).unwrap_or_else(|| panic!("{number}"));
        lab.ask(&decline(number, address));
        // Whoever declines answers at the address, too.
        lab.input(Input::Looked { address, user: Some(mac(7)) });
    }
    assert_eq!(pool(&lab).declined_count, 100);
    assert!(lease(&mut lab, 60_000).is_some());
}

#[test]
fn a_release_in_another_s_name_ends_nothing() {
    let mut lab = room(0);
    let (offer, _) = lab.answer(&Ask::discover(1).option(61, b"one"));
    lab.ask(&Ask::select(1, offer.yiaddr).option(61, b"one"));
    let release = Ask::new(MessageType::Release, 1).ciaddr(offer.yiaddr);
    assert_eq!(lab.ask(&release), []);
    assert_eq!(lab.ask(&release.option(61, b"one")).len(), 2);
}
