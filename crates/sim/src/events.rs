//! The queue of events: a wheel of short time slots, since a heap of all events is most of the time
//! of a large run.
//!
//! Events of one moment come out in the order in which they went in, so that a run is repeatable.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use torrent::Time;

/// Length of a slot as a power of two of nanoseconds: 8 µs, in which 10,000 nodes have a few hundred
/// events.
const SLOT_BITS: u32 = 13;

/// Slots of the wheel: 134 ms, so that all but long timeouts go in directly.
const SLOTS: u64 = 16384;

/// Events, earliest first.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    /// The slot that is being taken out: all events of slots up to this one are in `near`.
    slot: u64,
    near: BinaryHeap<Reverse<Scheduled<E>>>,
    wheel: Vec<Vec<Scheduled<E>>>,
    in_wheel: usize,
    /// Emptied slots, whose memory is still in the cache.
    spare: Vec<Vec<Scheduled<E>>>,
    /// Events past the end of the wheel.
    far: BinaryHeap<Reverse<Scheduled<E>>>,
    order: u64,
}

#[derive(Debug)]
struct Scheduled<E> {
    at: Time,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self {
            slot: 0,
            near: BinaryHeap::new(),
            wheel: (0..SLOTS).map(|_| vec![]).collect(),
            in_wheel: 0,
            spare: vec![],
            far: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(crate) fn push(&mut self, at: Time, event: E) {
        self.order += 1;
        self.put(Scheduled { at, order: self.order, event });
    }

    fn put(&mut self, scheduled: Scheduled<E>) {
        let slot = slot_of(scheduled.at);
        if slot <= self.slot {
            self.near.push(Reverse(scheduled));
        } else if slot - self.slot < SLOTS {
            let events = &mut self.wheel[(slot % SLOTS) as usize];
            if events.capacity() == 0
                && let Some(spare) = self.spare.pop()
            {
                *events = spare;
            }
            events.push(scheduled);
            self.in_wheel += 1;
        } else {
            self.far.push(Reverse(scheduled));
        }
    }

    /// The next event. `touch` is called for events that come soon, many at a time, so that the
    /// processor can fetch what they need from memory at once instead of one after another.
    pub(crate) fn pop(&mut self, touch: impl Fn(&E)) -> Option<(Time, E)> {
        while self.near.is_empty() {
            self.turn()?;
            self.near.iter().for_each(|Reverse(soon)| touch(&soon.event));
        }
        self.near.pop().map(|Reverse(next)| (next.at, next.event))
    }

    /// Goes on to the next slot that may hold something.
    fn turn(&mut self) -> Option<()> {
        if self.in_wheel == 0 {
            let Reverse(first) = self.far.peek()?;
            self.slot = slot_of(first.at);
        } else {
            self.slot += 1;
            let slot = &mut self.wheel[(self.slot % SLOTS) as usize];
            self.in_wheel -= slot.len();
            let mut events = std::mem::take(slot);
            self.near.extend(events.drain(..).map(Reverse));
            self.spare.push(events);
        }
        while let Some(Reverse(first)) = self.far.peek()
            && slot_of(first.at) < self.slot + SLOTS
            && let Some(Reverse(first)) = self.far.pop()
        {
            self.put(first);
        }
        Some(())
    }
}

const fn slot_of(at: Time) -> u64 {
    at.as_nanos() >> SLOT_BITS
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl<E> Eq for Scheduled<E> {}
impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_by_time_then_in_the_order_they_went_in() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut queue = Queue::new();
        let mut expect = vec![];
        for number in 0..5000u64 {
            // Some in the same nanosecond, some past the wheel's end.
            let at = Time::from_nanos(rng.u64(..1000) * [1, 1000, 1_000_000][rng.usize(..3)]);
            queue.push(at, number);
            expect.push((at, number));
        }
        expect.sort_unstable();
        let got: Vec<_> = std::iter::from_fn(|| queue.pop(|_| ())).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn an_event_put_in_while_others_are_taken_out_keeps_its_place() {
        let mut queue = Queue::new();
        queue.push(Time::from_nanos(10), 1);
        queue.push(Time::from_nanos(1 << 40), 4);
        assert_eq!(queue.pop(|_| ()).map(|(_, event)| event), Some(1));
        queue.push(Time::from_nanos(1 << 39), 3);
        queue.push(Time::from_nanos(11), 2);
        let rest: Vec<i32> =
            std::iter::from_fn(|| queue.pop(|_| ())).map(|(_, event)| event).collect();
        assert_eq!(rest, [2, 3, 4]);
    }
}
