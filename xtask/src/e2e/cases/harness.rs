//! The harness itself: if this fails, no other case means anything.

use std::time::Duration;

use anyhow::Result;

use super::BOOT_TIMEOUT;
use crate::e2e::machine::{Card, Firmware, Machine, Spec};
use crate::e2e::{Stage, stranger, testos};
use crate::lab::{Lab, Slot};

pub(super) fn run(stage: &Stage<'_>) -> Result<()> {
    let lab = Lab::new(0, None, &stage.dir)?;
    let _server = stranger::boot_server(&lab, Slot::SERVER, stage.testos)?;
    let specs = [
        Spec::new(1, Firmware::Ipxe),
        Spec::new(2, Firmware::Uefi),
        Spec::new(3, Firmware::Pxe).card(Card::E1000),
    ];
    let mut machines = vec![];
    for spec in specs {
        machines.push(Machine::start(&lab, spec.capture(stage.capture), &stage.dir)?);
    }
    for machine in &machines {
        let time = machine.wait_for(&testos::ready("stranger"), BOOT_TIMEOUT)?;
        machine.wait_for(testos::ADDRESS, Duration::ZERO)?;
        eprintln!("  {} ready after {:.0} s", machine.spec().name(), time.as_secs_f64());
    }
    Ok(())
}
