//! The node's network: drivers, link, lease, and what the person and the server are told of it.

use std::net::Ipv4Addr;
use std::time::Duration;

use boot::Stage;

use crate::failed::{Failed, chain};
use crate::modules;
use crate::network::{Network, NetworkConfig, NetworkEvent};
use crate::node::Node;

/// The network, once it is up. It is kept for as long as the agent lives.
pub(crate) struct Link {
    network: Option<Network>,
    drivers_loaded: bool,
}

impl Link {
    pub(crate) const fn new() -> Self {
        Self { network: None, drivers_loaded: false }
    }

    /// Brings the network up if it is not.
    ///
    /// # Errors
    /// If there is no interface, carrier or lease yet.
    pub(crate) fn bring_up(&mut self, node: &mut Node) -> Result<(), Failed> {
        if !node.options.network || self.network.is_some() {
            return Ok(());
        }
        if !self.drivers_loaded {
            self.load_drivers(node);
        }
        let config = NetworkConfig {
            preferred: node.options.mac,
            boot_server: node.options.server.as_ref().and_then(|server| server.address()),
            ..NetworkConfig::default()
        };
        node.enter(Stage::Link, &[]);
        let network = Network::bring_up(&config, &mut |event| tell(node, &event))
            .map_err(|error| Failed::new(error.failure(), chain(&error)))?;
        let lease = network.lease();
        let interface = network.interface();
        node.machine.interface = Some(interface.name.clone());
        node.machine.driver = interface.driver.clone();
        node.machine.address = Some(lease.address.to_string());
        // A lab knows a node by the interface that its firmware booted from; without a word of it
        // by the one that works.
        node.options.mac.get_or_insert(interface.mac);
        node.introduce();
        node.take_stock();
        self.network = Some(network);
        Ok(())
    }

    /// For how long the address is leased; for ever, or not by us, if none.
    pub(crate) fn lease_time(&self) -> Option<Duration> {
        self.network.as_ref().and_then(|network| network.lease().lease_time)
    }

    /// The interfaces were switched off: it has to be brought up anew.
    pub(crate) fn is_down(&mut self) {
        self.network = None;
    }

    fn load_drivers(&mut self, node: &Node) {
        node.console.say("Looking for drivers.");
        match modules::coldplug(&node.options.root) {
            Ok(loaded) => node.console.say(&format!("  loaded: {loaded}")),
            // What is built into the kernel may be enough.
            Err(error) => node.console.say(&format!("  {}", chain(&error))),
        }
        self.drivers_loaded = true;
    }
}

fn tell(node: &mut Node, event: &NetworkEvent<'_>) {
    match event {
        NetworkEvent::LookingForLink { interfaces: [] } => {
            node.console.say("Waiting for a network interface.");
        }
        NetworkEvent::LookingForLink { interfaces } => {
            let names: Vec<&str> = interfaces.iter().map(|each| each.name.as_str()).collect();
            node.console.say(&format!("Waiting for a carrier on {}.", names.join(", ")));
        }
        NetworkEvent::Carrier { interface } => {
            node.console.say(&format!("{} has a carrier.", interface.name));
        }
        NetworkEvent::AskingForLease { interface, attempt } => {
            let mac = interface.mac.to_string();
            node.enter(Stage::Lease, &[("interface", &interface.name), ("mac", &mac)]);
            if *attempt > 1 {
                node.console.say(&format!("Asking for an address again ({attempt})."));
            }
        }
        NetworkEvent::Bound { interface, lease } => {
            let from: Ipv4Addr = lease.server;
            node.console.say(&format!(
                "{} has the address {}/{} from {from}.",
                interface.name, lease.address, lease.prefix_len
            ));
        }
    }
}
