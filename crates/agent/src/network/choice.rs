//! Which interface to ask on. A node has one that it was started from, and the boot program says
//! which; but it may be on the wrong switch, its cable may have been pulled since, or there was no
//! boot program that could say.

use std::time::Duration;

use boot::Mac;

use super::interface::Interface;

/// How long others wait for the preferred interface to get its carrier: copper at 1 Gbit/s needs 2 to
/// 4 s to negotiate, some cards twice that after their driver has loaded a firmware.
pub(super) const PREFERRED_WAIT: Duration = Duration::from_secs(10);

/// How long one interface is asked on while another one has a carrier, too: the first five
/// DISCOVERs.
pub(super) const SHARE: Duration = Duration::from_secs(8);

/// The interface to ask on next, if there is any by now.
///
/// `asked` are the names of those that were asked on without success, the last one last: they are
/// asked again when the others have had their turn.
pub(super) fn choose<'a>(
    interfaces: &'a [Interface],
    preferred: Option<Mac>,
    asked: &[String],
    waited: Duration,
) -> Option<&'a Interface> {
    let is_preferred = |interface: &Interface| Some(interface.mac) == preferred;
    let turn = |interface: &Interface| asked.iter().rposition(|name| *name == interface.name);
    let with_carrier = || interfaces.iter().filter(|interface| interface.has_carrier);
    let may_be_other = preferred.is_none()
        || waited >= PREFERRED_WAIT
        || interfaces.iter().any(|interface| is_preferred(interface) && turn(interface).is_some());
    // `None`, never asked on, is less than any turn.
    with_carrier()
        .filter(|interface| may_be_other || is_preferred(interface))
        .min_by_key(|interface| (turn(interface), !is_preferred(interface), interface.index))
}

/// Whether another interface than this one could be asked on.
pub(super) fn has_rival(interfaces: &[Interface], name: &str) -> bool {
    interfaces.iter().any(|interface| interface.has_carrier && interface.name != name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE_ASKED: &[String] = &[];

    fn interface(number: u8, has_carrier: bool) -> Interface {
        Interface {
            name: format!("eth{number}"),
            mac: Mac([2, 0, 0, 0, 0, number]),
            driver: None,
            index: u32::from(number) + 2,
            is_hardware: true,
            has_carrier,
        }
    }

    fn check(
        carriers: &[bool],
        preferred: Option<u8>,
        asked: &[&str],
        waited_s: u64,
        expect: Option<&str>,
    ) {
        let interfaces: Vec<Interface> =
            (0..).zip(carriers).map(|(number, &carrier)| interface(number, carrier)).collect();
        let preferred = preferred.map(|number| Mac([2, 0, 0, 0, 0, number]));
        let asked: Vec<String> = asked.iter().map(|&name| name.to_owned()).collect();
        let chosen = choose(&interfaces, preferred, &asked, Duration::from_secs(waited_s));
        assert_eq!(chosen.map(|interface| interface.name.as_str()), expect);
    }

    #[test]
    fn the_preferred_one_comes_first() {
        check(&[true, true], Some(1), &[], 0, Some("eth1"));
        check(&[true, true], None, &[], 0, Some("eth0"));
    }

    #[test]
    fn others_wait_for_the_preferred_ones_carrier() {
        check(&[true, false], Some(1), &[], 9, None);
        check(&[true, false], Some(1), &[], 10, Some("eth0"));
        check(&[true, true], Some(1), &[], 10, Some("eth1"));
    }

    #[test]
    fn an_address_that_no_interface_has_is_waited_for_and_no_longer() {
        check(&[true], Some(7), &[], 9, None);
        check(&[true], Some(7), &[], 10, Some("eth0"));
    }

    #[test]
    fn all_with_a_carrier_have_their_turn() {
        check(&[true, true, true], Some(1), &["eth1"], 3, Some("eth0"));
        check(&[true, true, true], Some(1), &["eth1", "eth0"], 3, Some("eth2"));
        check(&[true, true, true], Some(1), &["eth1", "eth0", "eth2"], 3, Some("eth1"));
        check(&[true, false, true], None, &["eth0", "eth2", "eth0"], 3, Some("eth2"));
    }

    #[test]
    fn without_a_carrier_there_is_none() {
        check(&[false, false], None, &[], 100, None);
        assert!(!has_rival(&[interface(0, true), interface(1, false)], "eth0"));
        assert!(has_rival(&[interface(0, true), interface(1, true)], "eth0"));
        assert!(choose(&[], None, NONE_ASKED, Duration::ZERO).is_none());
    }
}
