//! Leases: grants, the keys that live by them, and their ends.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::{Error, Granted, Header, Key, LeaseId, LeaseStatus, Record, Store};

/// The shortest time to live. A real etcd's is longer by its election timeout: 2 s by default.
const MIN_TTL: Duration = Duration::from_secs(1);

/// The longest time to live.
const MAX_TTL: Duration = Duration::from_secs(9_000_000_000);

/// The leases that live.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: HashMap<LeaseId, Lease>,
    /// The same leases, the next to expire first.
    queue: BTreeSet<(Duration, LeaseId)>,
    /// The last id that was given to a grant that brought none.
    last_id: i64,
}

#[derive(Debug)]
pub(crate) struct Lease {
    ttl: Duration,
    /// When it ends unless it is kept alive.
    expiry: Duration,
    /// What lives by it.
    keys: BTreeSet<Key>,
}

impl Leases {
    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn attach(&mut self, id: LeaseId, key: Key) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.insert(key);
        }
    }

    pub(crate) fn detach(&mut self, id: LeaseId, key: &Key) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Every lease with its time to live, in the order of the ids.
    pub(crate) fn all(&self) -> Vec<(LeaseId, Duration)> {
        let leases = self.leases.iter();
        let mut all: Vec<_> = leases.map(|(&id, lease)| (id, lease.ttl)).collect();
        all.sort_unstable();
        all
    }

    /// Lets a lease live from now on.
    pub(crate) fn insert(&mut self, now: Duration, id: LeaseId, ttl: Duration) {
        let expiry = now.saturating_add(ttl);
        self.queue.insert((expiry, id));
        let lease = Lease {
            ttl,
            expiry,
            keys: BTreeSet::new(),
        };
        self.leases.insert(id, lease);
    }

    /// The last id that was chosen here.
    pub(crate) const fn last_id(&self) -> i64 {
        self.last_id
    }

    pub(crate) const fn set_last_id(&mut self, last_id: i64) {
        self.last_id = last_id;
    }

    /// The lease, if its time has not run out at `now`.
    fn living(&self, id: LeaseId, now: Duration) -> Option<&Lease> {
        self.leases.get(&id).filter(|lease| lease.expiry > now)
    }

    fn renew(&mut self, id: LeaseId, now: Duration) -> Option<Duration> {
        let lease = self.leases.get_mut(&id)?;
        if lease.expiry <= now {
            return None;
        }
        self.queue.remove(&(lease.expiry, id));
        lease.expiry = now.saturating_add(lease.ttl);
        self.queue.insert((lease.expiry, id));
        Some(lease.ttl)
    }

    fn renew_all(&mut self, now: Duration) {
        self.queue.clear();
        for (&id, lease) in &mut self.leases {
            lease.expiry = now.saturating_add(lease.ttl);
            self.queue.insert((lease.expiry, id));
        }
    }

    pub(crate) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        self.queue.remove(&(lease.expiry, id));
        Some(lease)
    }

    fn unused_id(&mut self) -> LeaseId {
        loop {
            self.last_id += 1;
            let id = LeaseId(self.last_id);
            if !self.contains(id) {
                return id;
            }
        }
    }
}

impl Store {
    /// Grants a lease of `ttl`, in whole seconds rounded up, and of one second at least. The id
    /// zero lets the store choose one.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseTtlTooLarge`], or [`Error::LeaseExists`].
    pub fn grant(&mut self, now: Duration, id: LeaseId, ttl: Duration) -> Result<Granted, Error> {
        if ttl > MAX_TTL {
            return Err(Error::LeaseTtlTooLarge);
        }
        if self.leases.contains(id) {
            return Err(Error::LeaseExists);
        }
        let id = match id {
            LeaseId(0) => {
                let id = self.leases.unused_id();
                self.record(|| Record::LeaseIdChosen(id));
                id
            }
            id => id,
        };
        let whole = Duration::from_secs(ttl.as_secs());
        let ttl = if whole < ttl {
            whole + Duration::from_secs(1)
        } else {
            whole
        };
        let ttl = ttl.max(MIN_TTL);
        self.leases.insert(now, id, ttl);
        self.record(|| Record::LeaseGranted { id, ttl });
        Ok(Granted {
            header: self.header(),
            id,
            ttl,
        })
    }

    /// Lets the lease begin its time to live anew, and returns that; zero if there is no such
    /// lease.
    pub fn keep_alive(&mut self, now: Duration, id: LeaseId) -> Duration {
        self.leases.renew(id, now).unwrap_or_default()
    }

    /// Lets every lease begin its time to live anew, as a new leader of a cluster does.
    pub fn keep_all_alive(&mut self, now: Duration) {
        self.leases.renew_all(now);
    }

    /// Ends a lease and deletes its keys, all at one revision.
    ///
    /// # Errors
    ///
    /// [`Error::LeaseNotFound`].
    pub fn revoke(&mut self, id: LeaseId) -> Result<Header, Error> {
        let lease = self.leases.remove(id).ok_or(Error::LeaseNotFound)?;
        let mut changes = Vec::with_capacity(lease.keys.len());
        for key in lease.keys {
            self.write(key, None, &mut changes);
        }
        self.commit(changes);
        self.record(|| Record::LeaseEnded { id });
        Ok(self.header())
    }

    /// Tells what is left of a lease, and with `keys` what lives by it. That there is no such lease
    /// is an answer too.
    pub fn lease_status(&self, now: Duration, id: LeaseId, keys: bool) -> LeaseStatus {
        let lease = self.leases.living(id, now);
        LeaseStatus {
            header: self.header(),
            id,
            granted: lease.map(|lease| lease.ttl).unwrap_or_default(),
            remaining: lease.map(|lease| Duration::from_secs((lease.expiry - now).as_secs())),
            keys: lease
                .filter(|_| keys)
                .map(|lease| lease.keys.iter().cloned().collect())
                .unwrap_or_default(),
        }
    }

    /// What lives by a lease.
    pub fn lease_keys(&self, id: LeaseId) -> impl Iterator<Item = &Key> {
        let lease = self.leases.leases.get(&id);
        lease.into_iter().flat_map(|lease| &lease.keys)
    }

    /// The leases that live, the next to expire first.
    pub fn leases(&self) -> Vec<LeaseId> {
        self.leases.queue.iter().map(|&(_, id)| id).collect()
    }

    /// Ends the leases whose time has run out, each as [`revoke`](Store::revoke) does.
    pub fn tick(&mut self, now: Duration) {
        while let Some(&(expiry, id)) = self.leases.queue.first()
            && expiry <= now
        {
            self.revoke(id).expect("the queue holds leases that live");
        }
    }

    /// When the next lease runs out, if none is kept alive.
    pub fn next_expiry(&self) -> Option<Duration> {
        self.leases.queue.first().map(|&(expiry, _)| expiry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Event, Put, Range, Revision, Txn, WatchRequest, Watcher};

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn store_with_lease(id: i64, seconds: u64, keys: &[&str]) -> Store {
        let mut store = Store::new(1, 1);
        let id = LeaseId(id);
        store.grant(at(0), id, at(seconds)).expect("a new lease");
        for &key in keys {
            let put = Put::new(key, "v").lease(id);
            store.txn(&Txn::new().then(put)).expect("a plain put");
        }
        store
    }

    #[test]
    fn the_keys_of_an_expired_lease_go_at_one_revision() {
        let mut store = store_with_lease(7, 5, &["b", "a"]);
        store.tick(at(4));
        assert_eq!(store.next_expiry(), Some(at(5)));
        let (mut watcher, _) =
            Watcher::new(&store, WatchRequest::new(crate::KeyRange::all())).expect("a range");
        store.tick(at(5));
        let told = watcher.next(&store).expect("kept").expect("deletions");
        let told: Vec<_> = told
            .events
            .iter()
            .map(|event| (event.key().to_string(), event.revision()))
            .collect();
        assert_eq!(
            told,
            [("a".to_owned(), Revision(4)), ("b".to_owned(), Revision(4))]
        );
        assert_eq!(store.next_expiry(), None);
    }

    #[test]
    fn a_lease_without_keys_ends_without_a_revision() {
        let mut store = store_with_lease(7, 5, &[]);
        store.tick(at(5));
        assert_eq!(store.header().revision, Revision(1));
        assert!(store.leases().is_empty());
    }

    #[test]
    fn a_lease_whose_time_has_run_out_cannot_be_kept_alive() {
        let mut store = store_with_lease(7, 5, &[]);
        assert_eq!(store.keep_alive(at(4), LeaseId(7)), at(5));
        assert_eq!(store.keep_alive(at(9), LeaseId(7)), Duration::ZERO);
        assert_eq!(store.lease_status(at(9), LeaseId(7), true).remaining, None);
    }

    #[test]
    fn a_new_leader_lets_all_leases_begin_anew() {
        let mut store = store_with_lease(7, 5, &["a"]);
        store.keep_all_alive(at(4));
        store.tick(at(8));
        assert_eq!(store.next_expiry(), Some(at(9)));
        store.tick(at(9));
        assert!(store.leases().is_empty());
    }

    #[test]
    fn a_put_without_a_lease_detaches_the_key() {
        let mut store = store_with_lease(7, 5, &["a"]);
        store
            .txn(&Txn::new().then(Put::new("a", "w")))
            .expect("a plain put");
        store.revoke(LeaseId(7)).expect("the lease lives");
        let found = store.range(&Range::new("a")).expect("a plain read");
        assert_eq!(found.count, 1);
    }

    #[test]
    fn times_to_live_are_whole_seconds_within_bounds() {
        let mut store = Store::new(1, 1);
        let mut granted = |id, ttl| {
            store
                .grant(at(0), LeaseId(id), ttl)
                .map(|granted| granted.ttl)
        };
        assert_eq!(granted(1, Duration::ZERO), Ok(at(1)));
        assert_eq!(granted(2, Duration::from_millis(1001)), Ok(at(2)));
        assert_eq!(granted(3, MAX_TTL), Ok(MAX_TTL));
        assert_eq!(
            granted(4, MAX_TTL + Duration::from_nanos(1)),
            Err(Error::LeaseTtlTooLarge)
        );
        assert_eq!(granted(3, at(1)), Err(Error::LeaseExists));
    }

    #[test]
    fn a_grant_without_an_id_gets_one_that_is_free() {
        let mut store = store_with_lease(1, 5, &[]);
        let granted = store
            .grant(at(0), LeaseId(0), at(5))
            .expect("an id is free");
        assert_eq!(granted.id, LeaseId(2));
    }

    #[test]
    fn a_revoked_lease_tells_watchers_of_its_keys() {
        let mut store = store_with_lease(7, 5, &["a"]);
        let (mut watcher, _) =
            Watcher::new(&store, WatchRequest::new("a").prev_kv()).expect("a key");
        store.revoke(LeaseId(7)).expect("the lease lives");
        assert_eq!(store.revoke(LeaseId(7)), Err(Error::LeaseNotFound));
        let told = watcher.next(&store).expect("kept").expect("a deletion");
        let [
            Event::Delete {
                prev: Some(prev), ..
            },
        ] = &told.events[..]
        else {
            panic!("one deletion with what stood before, not {told:?}");
        };
        assert_eq!(prev.lease, Some(LeaseId(7)));
    }
}
