//! The cases of the benchmark: who is slow, late or dies, and when.

use clap::ValueEnum;

use super::SwarmArgs;
use crate::lab::{Rate, Slot};

/// When the accident of a case happens: nodes hold enough to matter and lack enough to suffer.
const ACCIDENT_AT: f64 = 0.4;

/// The slow nodes' share of the rate.
const SLOW_DIVISOR: u64 = 5;

/// Length of the file in the unlimited case: several hundred milliseconds at memory speed.
const UNLIMITED_LEN: u64 = 1 << 30;

/// A situation to measure in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// All start at once, nothing goes wrong
    Clean,
    /// A quarter of the nodes is killed at 40 % of F/B
    Kill,
    /// One node in the middle of the numbers is killed at 40 % of F/B
    KillOne,
    /// The same without a word: their links die first
    Poweroff,
    /// An eighth of the nodes has a fifth of the rate
    Slow,
    /// An eighth of the nodes starts at 40 % of F/B
    Late,
    /// The server dies once it has sent one copy
    DeadSeed,
    /// One node
    One,
    /// One node, 1 GiB, links not shaped
    Unlimited,
}

/// What happens to a node in a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Usual,
    Doomed,
    Slow,
    Late,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Doomed => "doomed",
            Self::Slow => "slow",
            Self::Late => "late",
        }
    }
}

/// A case with all its numbers.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) case: Case,
    pub(crate) node_count: usize,
    pub(crate) len: u64,
    pub(crate) rate: Option<Rate>,
    pub(crate) dead_seed_at: f64,
    pub(crate) give_up: f64,
}

impl Case {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Kill => "kill",
            Self::KillOne => "kill-one",
            Self::Poweroff => "poweroff",
            Self::Slow => "slow",
            Self::Late => "late",
            Self::DeadSeed => "dead-seed",
            Self::One => "one",
            Self::Unlimited => "unlimited",
        }
    }

    pub(super) fn plan(self, args: &SwarmArgs) -> Plan {
        let alone = matches!(self, Self::One | Self::Unlimited);
        let unlimited = self == Self::Unlimited;
        Plan {
            case: self,
            node_count: if alone { 1 } else { args.nodes },
            len: if unlimited { UNLIMITED_LEN } else { args.size },
            rate: (!unlimited).then_some(args.rate),
            dead_seed_at: args.dead_seed_at,
            give_up: args.give_up,
        }
    }

    /// Spread over the numbers, as a chain cares which ones they are.
    pub(crate) fn role(self, node: Slot) -> Role {
        match self {
            Self::Kill | Self::Poweroff if node.number() % 4 == 2 => Role::Doomed,
            Self::KillOne if node.number() == 8 => Role::Doomed,
            Self::Slow if node.number() % 8 == 5 => Role::Slow,
            Self::Late if node.number().is_multiple_of(8) => Role::Late,
            _ => Role::Usual,
        }
    }
}

impl Plan {
    pub(crate) fn slow_rate(&self) -> Option<Rate> {
        self.rate.map(|rate| rate.divided_by(SLOW_DIVISOR))
    }

    /// How many times longer than F/B a role needs at best.
    pub(crate) fn slowness(&self, role: Role) -> f64 {
        if role == Role::Slow { SLOW_DIVISOR as f64 } else { 1.0 }
    }

    /// When the case's accident happens, in multiples of F/B.
    pub(crate) fn accident_at(&self) -> Option<f64> {
        matches!(self.case, Case::Kill | Case::KillOne | Case::Poweroff | Case::Late)
            .then_some(ACCIDENT_AT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_nodes_have_the_roles_of_the_specification() {
        let count =
            |case: Case, role| (1..=16).filter(|n| case.role(Slot::node(*n)) == role).count();
        assert_eq!(count(Case::Kill, Role::Doomed), 4);
        assert_eq!(count(Case::KillOne, Role::Doomed), 1);
        assert_eq!(count(Case::Poweroff, Role::Doomed), 4);
        assert_eq!(count(Case::Slow, Role::Slow), 2);
        assert_eq!(count(Case::Late, Role::Late), 2);
        assert_eq!(count(Case::Clean, Role::Usual), 16);
    }
}
