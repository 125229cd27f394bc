//! Virtual machines that boot through all of it.

use std::time::Duration;

use anyhow::Result;

use super::super::attacker;
use super::super::scene::{IMAGE, Scene};
use crate::e2e::machine::{Firmware, Machine, Spec};
use crate::e2e::testos;

/// On an idle processor 40 s; here two share two with the server and who attacks it.
const BOOT_TIMEOUT: Duration = Duration::from_secs(240);

pub(super) fn boot_through_all(scene: &mut Scene<'_>) -> Result<()> {
    scene.under(attacker::ALL, || {
        let machines = [(1, Firmware::Ipxe), (2, Firmware::Uefi)].map(|(number, firmware)| {
            Machine::start(scene.lab, Spec::new(number, firmware), &scene.evidence)
        });
        for machine in machines.iter() {
            let machine = match machine {
                Ok(machine) => machine,
                Err(error) => anyhow::bail!("{error:#}"),
            };
            let time = machine.wait_for(&testos::ready(IMAGE), BOOT_TIMEOUT)?;
            let name = format!("{:?}", machine.spec().firmware);
            eprintln!("  {name} runs {IMAGE} after {:.0} s", time.as_secs_f64());
        }
        Ok(())
    })
}
