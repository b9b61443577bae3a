//! Who waits for a change, and is woken when it comes.

use std::task::Waker;

/// How many are woken at once. Others who wait for the scheduler get their turn before the next are, and what comes
/// meanwhile is told with the rest.
const WOKEN_AT_ONCE: usize = 16;

/// A place for each who may wait. The places are looked at in turn, so that nobody is passed over where changes
/// come sooner than all are woken.
#[derive(Default)]
pub(super) struct Waiters {
    /// Who waits, by place.
    places: Vec<Option<Waker>>,
    /// The places that are nobody's.
    free: Vec<usize>,
    /// The place that is looked at next.
    next: usize,
    /// How many were not looked at since the last change.
    due: usize,
}

impl Waiters {
    /// A place for one more, who is to look before he waits.
    pub(super) fn enter(&mut self) -> usize {
        if let Some(place) = self.free.pop() {
            return place;
        }
        self.places.push(None);
        if self.due > 0 {
            // It may have come between those that are to be looked at.
            self.due += 1;
        }
        self.places.len() - 1
    }

    /// Gives a place up. What is returned is to be dropped outside of locks.
    pub(super) fn leave(&mut self, place: usize) -> Option<Waker> {
        self.free.push(place);
        self.places[place].take()
    }

    /// Has a task woken by the next change. What is returned is to be dropped outside of locks.
    pub(super) fn wait(&mut self, place: usize, waker: Waker) -> Option<Waker> {
        self.places[place].replace(waker)
    }

    /// There is a change, of which all that wait are to know.
    pub(super) fn change(&mut self) {
        self.due = self.places.len();
    }

    /// Those who are to be woken next, which is to be done outside of locks; `None` if there is nobody any more.
    pub(super) fn take(&mut self) -> Option<Vec<Waker>> {
        let mut woken = Vec::new();
        while woken.len() < WOKEN_AT_ONCE && self.due > 0 {
            self.due -= 1;
            self.next = (self.next + 1) % self.places.len();
            if let Some(waker) = self.places[self.next].take() {
                if woken.is_empty() {
                    woken.reserve_exact(WOKEN_AT_ONCE);
                }
                woken.push(waker);
            }
        }
        (!woken.is_empty()).then_some(woken)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Told(AtomicUsize);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Told {
        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// One who waits.
    fn enter(waiters: &mut Waiters) -> (usize, Arc<Told>) {
        let told = Arc::new(Told::default());
        let place = waiters.enter();
        wait(waiters, place, &told);
        (place, told)
    }

    fn wait(waiters: &mut Waiters, place: usize, told: &Arc<Told>) {
        drop(waiters.wait(place, Waker::from(Arc::clone(told))));
    }

    /// Wakes some, and tells how many.
    fn wake(waiters: &mut Waiters) -> usize {
        let woken = waiters.take().unwrap_or_default();
        let count = woken.len();
        woken.into_iter().for_each(Waker::wake);
        count
    }

    #[test]
    fn all_are_woken_once_some_at_a_time() {
        let mut waiters = Waiters::default();
        let all: Vec<_> = (0..100).map(|_| enter(&mut waiters)).collect();
        assert_eq!(wake(&mut waiters), 0, "nothing has changed");
        waiters.change();
        assert_eq!(wake(&mut waiters), WOKEN_AT_ONCE);
        while wake(&mut waiters) > 0 {}
        assert!(all.iter().all(|(_, told)| told.times() == 1));
        waiters.change();
        assert_eq!(wake(&mut waiters), 0, "nobody waits any more");
    }

    #[test]
    fn who_waits_again_before_the_next_are_woken_waits_for_the_next_change() {
        let mut waiters = Waiters::default();
        let (place, told) = enter(&mut waiters);
        waiters.change();
        while wake(&mut waiters) > 0 {}
        wait(&mut waiters, place, &told);
        assert_eq!(wake(&mut waiters), 0);
        waiters.change();
        assert_eq!(wake(&mut waiters), 1);
        assert_eq!(told.times(), 2);
    }

    #[test]
    fn changes_that_come_sooner_than_all_are_woken_pass_nobody_over() {
        let mut waiters = Waiters::default();
        let all: Vec<_> = (0..100).map(|_| enter(&mut waiters)).collect();
        for _ in 0..100_usize.div_ceil(WOKEN_AT_ONCE) {
            waiters.change();
            wake(&mut waiters);
            // Those who are quick wait again at once.
            for (place, told) in &all {
                if told.times() > 0 {
                    wait(&mut waiters, *place, told);
                }
            }
        }
        assert!(all.iter().all(|(_, told)| told.times() > 0));
    }

    #[test]
    fn who_comes_while_others_are_woken_keeps_nobody_from_it() {
        for known in 1..70 {
            for before in 0..known / WOKEN_AT_ONCE {
                for after in 0..known / WOKEN_AT_ONCE {
                    let mut waiters = Waiters::default();
                    let all: Vec<_> = (0..known).map(|_| enter(&mut waiters)).collect();
                    waiters.change();
                    (0..before).for_each(|_| assert_eq!(wake(&mut waiters), WOKEN_AT_ONCE));
                    for (place, told) in &all {
                        wait(&mut waiters, *place, told);
                    }
                    waiters.change();
                    (0..after).for_each(|_| assert_eq!(wake(&mut waiters), WOKEN_AT_ONCE));
                    let seen: Vec<_> = all.iter().map(|(_, told)| told.times()).collect();
                    let _newcomer = enter(&mut waiters);
                    while wake(&mut waiters) > 0 {}
                    let again = all
                        .iter()
                        .zip(seen)
                        .filter(|((_, told), seen)| told.times() > *seen);
                    assert_eq!(again.count(), known - after * WOKEN_AT_ONCE);
                }
            }
        }
    }

    #[test]
    fn a_place_that_was_left_is_taken_again_and_wakes_nobody_else() {
        let mut waiters = Waiters::default();
        for _ in 0..10 {
            let all: Vec<_> = (0..100).map(|_| enter(&mut waiters)).collect();
            for (place, _) in &all[1..] {
                drop(waiters.leave(*place));
            }
            waiters.change();
            while wake(&mut waiters) > 0 {}
            let (first, told) = &all[0];
            assert_eq!(told.times(), 1);
            assert!(all[1..].iter().all(|(_, told)| told.times() == 0));
            drop(waiters.leave(*first));
        }
        assert_eq!(waiters.places.len(), 100);
    }

    #[test]
    fn a_task_that_waits_twice_is_woken_as_it_was_last() {
        let mut waiters = Waiters::default();
        let (place, first) = enter(&mut waiters);
        let second = Arc::new(Told::default());
        wait(&mut waiters, place, &second);
        waiters.change();
        while wake(&mut waiters) > 0 {}
        assert_eq!((first.times(), second.times()), (0, 1));
    }
}
