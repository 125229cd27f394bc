//! Encapsulated options: PXE's in option 43 (PXE 2.1 section 2.4) and iPXE's in option 175.

/// PXE discovery control, one byte of flags.
const DISCOVERY_CONTROL: u8 = 6;

/// Bit 3: if the offer names a boot file, load it; no prompt, no menu, no search for boot servers.
/// The other three bits, which forbid ways of searching, mean nothing then, and some ROMs take an
/// offer with all of them for one without any server.
const LOAD_THE_FILE: u8 = 0x08;

/// The boot item that was chosen, type and layer, two bytes each.
const BOOT_ITEM: u8 = 71;

/// iPXE: there is nothing to wait for beside the DHCP server.
const NO_PROXY_DHCP: u8 = 176;

/// iPXE: this one can load by HTTP.
const HTTP: u8 = 19;

/// Ends the list.
const END: u8 = 255;

/// Option 43 of an offer that is to be booted at once.
pub(crate) const BOOT_AT_ONCE: [u8; 4] = [DISCOVERY_CONTROL, 1, LOAD_THE_FILE, END];

/// Option 175 that spares iPXE the two seconds in which it waits for a proxyDHCP server.
pub(crate) const IPXE_NO_PROXY: [u8; 3] = [NO_PROXY_DHCP, 1, 1];

/// The bytes of an encapsulated option. Lists that are cut off are read as far as they go.
pub(crate) fn find(list: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = list;
    loop {
        match rest {
            [0, tail @ ..] => rest = tail,
            [END, ..] | [] | [_] => return None,
            [found, len, tail @ ..] => {
                let (data, after) = tail.split_at_checked(usize::from(*len))?;
                if *found == code {
                    return Some(data);
                }
                rest = after;
            }
        }
    }
}

/// Whether this iPXE says that it can load by HTTP. One that says nothing can: all builds do that
/// distributions ship.
pub(crate) fn ipxe_has_http(list: Option<&[u8]>) -> bool {
    list.is_none_or(|list| find(list, HTTP).is_some_and(|value| value.iter().any(|byte| *byte > 0)))
}

/// The answer's option 43 to a request for a boot item, which must name the same item.
pub(crate) fn boot_item(list: &[u8]) -> Option<[u8; 7]> {
    let &[kind_high, kind_low, layer_high, layer_low] = find(list, BOOT_ITEM)? else {
        return None;
    };
    Some([BOOT_ITEM, 4, kind_high, kind_low, layer_high, layer_low, END])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encapsulated_options_are_found_past_padding() {
        let list = [0, 1, 2, 9, 9, 0, 71, 4, 0, 0, 0, 0, 255, 6, 1, 8];
        assert_eq!(find(&list, 71), Some(&[0, 0, 0, 0][..]));
        assert_eq!(find(&list, 6), None);
    }

    #[test]
    fn lists_that_are_cut_off_end_there() {
        for list in [&[6][..], &[6, 1], &[1, 5, 6, 1, 8], &[]] {
            assert_eq!(find(list, 6), None, "{list:?}");
        }
    }

    #[test]
    fn an_ipxe_that_lists_features_without_http_has_none() {
        assert!(ipxe_has_http(None));
        assert!(ipxe_has_http(Some(&[177, 1, 1, 19, 1, 1])));
        assert!(!ipxe_has_http(Some(&[177, 1, 1, 21, 1, 1])));
        assert!(!ipxe_has_http(Some(&[19, 1, 0])));
    }

    #[test]
    fn a_boot_item_is_named_back() {
        assert_eq!(boot_item(&[71, 4, 0x80, 0, 0, 1, 255]), Some([71, 4, 0x80, 0, 0, 1, 255]));
        assert_eq!(boot_item(&[71, 2, 0, 0]), None);
    }
}
