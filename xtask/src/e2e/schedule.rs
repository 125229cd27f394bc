//! Cases side by side: most wait for one machine, which keeps one processor busy.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::cases::Case;
use crate::interrupt;

/// Machines at once. Those of software emulation share the real processors: with four on two of them, which
/// one of the cases needs anyway, a boot takes one to two minutes, a fraction of the time that it may take.
const MACHINES_MAX: usize = 4;

struct State<'a, T> {
    /// In the order in which they begin if there is room.
    waiting: Vec<&'a Case>,
    machine_count: usize,
    done: Vec<T>,
}

/// Runs each case, and gives what became of them in the order in which they ended. After an interrupt no
/// other case begins.
pub(super) fn side_by_side<T: Send>(cases: Vec<&Case>, run: impl Fn(&Case) -> T + Sync) -> Vec<T> {
    let worker_count = cases.len().min(MACHINES_MAX);
    let state = Mutex::new(State { waiting: cases, machine_count: 0, done: vec![] });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..worker_count {
            scope.spawn(|| {
                while let Some(case) = take(&state, &changed) {
                    let result = run(case);
                    let mut state = lock(&state);
                    state.machine_count -= case.machines;
                    state.done.push(result);
                    changed.notify_all();
                }
            });
        }
    });
    state.into_inner().unwrap_or_else(PoisonError::into_inner).done
}

/// Waits for the next case that there is room for; `None` when all have begun.
fn take<'a, T>(state: &Mutex<State<'a, T>>, changed: &Condvar) -> Option<&'a Case> {
    let mut state = lock(state);
    loop {
        if state.waiting.is_empty() || interrupt::check().is_err() {
            return None;
        }
        if let Some(at) = fitting(&state.waiting, state.machine_count) {
            let case = state.waiting.remove(at);
            state.machine_count += case.machines;
            return Some(case);
        }
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

/// The first that there is room for.
fn fitting(waiting: &[&Case], machine_count: usize) -> Option<usize> {
    waiting.iter().position(|case| machine_count + case.machines <= MACHINES_MAX)
}

fn lock<'s, 'a, T>(state: &'s Mutex<State<'a, T>>) -> MutexGuard<'s, State<'a, T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::cases;

    #[test]
    fn as_many_begin_as_there_is_room_for_and_no_more() {
        let mut waiting: Vec<&Case> = cases::ALL.iter().collect();
        while !waiting.is_empty() {
            let mut machine_count = 0;
            while let Some(at) = fitting(&waiting, machine_count) {
                machine_count += waiting.remove(at).machines;
            }
            assert!((1..=MACHINES_MAX).contains(&machine_count), "{machine_count} machines");
            let room = MACHINES_MAX - machine_count;
            assert!(waiting.iter().all(|case| case.machines > room), "somebody waits for nothing");
        }
    }

    #[test]
    fn every_case_runs_once() {
        let mut done = side_by_side(cases::ALL.iter().collect(), |case| case.name);
        let mut expect: Vec<_> = cases::ALL.iter().map(|case| case.name).collect();
        done.sort_unstable();
        expect.sort_unstable();
        assert_eq!(done, expect);
    }
}
