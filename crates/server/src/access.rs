//! Who may do what.
//!
//! `caller`, `token` and `password` tell who asks, and how that is proved.

pub(crate) mod caller;
pub(crate) mod password;
pub(crate) mod token;

use std::time::Duration;

use quorate_engine::{Auth, Error, Key, KeyRange, LeaseId, Op, PermissionKind, Put, Store, Txn};

use crate::{access::caller::Caller, store::shared::State};

/// What a request needs that it is served, once authentication is enabled. Nothing is served to a
/// token that is not good, whatever the request needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need<'a> {
    /// Anybody may, even without a token.
    Nothing,
    /// Every user may.
    User,
    /// The role `root`.
    Root,
    /// The role `root`, or to be this user.
    Oneself(&'a str),
    /// The role `root`, or this role.
    Role(&'a str),
    /// The right to read these keys.
    Read(&'a KeyRange),
    /// The rights to all that it compares, reads and writes, whichever way it goes.
    Txn(&'a Txn),
    /// The right to read the keys of a lease.
    ReadLease(LeaseId),
    /// The right to write the keys of a lease, which live and end with it.
    WriteLease(LeaseId),
    /// The right to read the keys of every lease.
    ReadLeases,
}

impl State {
    /// Refuses a caller who may not do what he asks for.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidToken`]; [`Error::UserNameEmpty`] to who does not tell who he is;
    /// [`Error::PermissionDenied`], or [`Error::UserNotFound`] to the holder of a certificate in an
    /// unknown name.
    pub(crate) fn permit(
        &mut self,
        now: Duration,
        caller: &Caller,
        need: Need<'_>,
    ) -> Result<(), Error> {
        let Self { store, tokens, .. } = self;
        let auth = store.auth();
        if !auth.is_enabled() {
            return Ok(());
        }
        let user = match &caller.token {
            Some(token) => Some(tokens.user_of(token, now).ok_or(Error::InvalidToken)?),
            None => caller.common_name.as_deref(),
        };
        let asked = Asked { auth, store, user };
        match need {
            Need::Nothing => Ok(()),
            Need::User => asked.user().map(drop),
            Need::Root => asked.root(),
            // To ask for the user without a name is to ask for oneself without a token, in etcd.
            Need::Oneself(name) if user.unwrap_or_default() == name => Ok(()),
            Need::Role(name) if user.is_some_and(|user| auth.has_role(user, name)) => Ok(()),
            Need::Oneself(_) | Need::Role(_) => asked.root(),
            Need::Read(keys) => asked.read(keys),
            Need::Txn(txn) => asked.txn(txn),
            Need::ReadLease(id) => asked.lease(id, PermissionKind::Read),
            Need::WriteLease(id) => asked.lease(id, PermissionKind::Write),
            Need::ReadLeases => {
                asked.user()?;
                let mut leases = store.leases().into_iter();
                leases.try_for_each(|id| asked.lease(id, PermissionKind::Read))
            }
        }
    }
}

/// Who asks, and what decides it.
struct Asked<'a> {
    auth: &'a Auth,
    store: &'a Store,
    user: Option<&'a str>,
}

impl Asked<'_> {
    fn user(&self) -> Result<&str, Error> {
        self.user.ok_or(Error::UserNameEmpty)
    }

    fn root(&self) -> Result<(), Error> {
        let name = self.user().ok().filter(|name| !name.is_empty());
        let name = name.ok_or(Error::UserNameEmpty)?;
        self.auth.user(name).ok_or(Error::UserNotFound)?;
        if !self.auth.is_root(name) {
            return Err(Error::PermissionDenied);
        }
        Ok(())
    }

    fn may(&self, kind: PermissionKind, keys: &KeyRange) -> Result<(), Error> {
        self.auth.check(self.user()?, kind, keys)
    }

    fn read(&self, keys: &KeyRange) -> Result<(), Error> {
        self.may(PermissionKind::Read, keys)
    }

    fn write(&self, keys: &KeyRange) -> Result<(), Error> {
        self.may(PermissionKind::Write, keys)
    }

    fn lease(&self, id: LeaseId, kind: PermissionKind) -> Result<(), Error> {
        let user = self.user()?;
        if self.auth.is_root(user) {
            return Ok(());
        }
        let mut keys = self.store.lease_keys(id);
        keys.try_for_each(|key: &Key| self.may(kind, &KeyRange::key(key)))
    }

    fn txn(&self, txn: &Txn) -> Result<(), Error> {
        for compare in &txn.compares {
            self.read(&compare.keys)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op {
                Op::Delete(delete) => {
                    self.write(&delete.keys)?;
                    if delete.prev_kv {
                        self.read(&delete.keys)?;
                    }
                }
                Op::Put(put) => self.put(put)?,
                Op::Range(range) => self.read(&range.keys)?,
                Op::Txn(inner) => self.txn(inner)?,
            }
        }
        Ok(())
    }

    /// A key joins a lease only for who may end what lives by it already.
    fn put(&self, put: &Put) -> Result<(), Error> {
        let key = KeyRange::key(&put.key);
        self.write(&key)?;
        if let Some(id) = put.lease {
            self.lease(id, PermissionKind::Write)?;
        }
        if put.prev_kv {
            self.read(&key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quorate_engine::{Password, Permission};
    use tonic::Request;

    use super::*;
    use crate::{store::shared::Shared, transport::tls::CommonName};

    const NOW: Duration = Duration::ZERO;

    /// What is answered to the holder of a certificate.
    fn ask(name: &str, gateway: bool, need: Need<'_>) -> Result<(), Error> {
        let shared = Shared::new(String::new(), NOW, None);
        let mut state = shared.lock();
        let auth = state.store.auth_mut();
        for (user, role) in [("root", "root"), ("ada", "r")] {
            let _ = auth.add_role(role);
            auth.add_user(user, Password::None).expect("a new name");
            auth.grant_role(user, role).expect("both exist");
        }
        let (kind, keys) = (PermissionKind::Read, KeyRange::key("k"));
        auth.grant("r", Permission { kind, keys })
            .expect("a good range");
        auth.enable().expect("root is root");

        let mut request = Request::new(());
        request.extensions_mut().insert(CommonName(name.to_owned()));
        if gateway {
            let value = "text/plain".parse().expect("a value");
            request.metadata_mut().insert("grpcgateway-accept", value);
        }
        let (caller, ()) = Caller::part(request);
        state.permit(NOW, &caller, need)
    }

    #[test]
    fn the_name_in_a_certificate_is_that_of_the_user() {
        let (k, l) = (KeyRange::key("k"), KeyRange::key("l"));
        assert_eq!(ask("root", false, Need::Root), Ok(()));
        assert_eq!(ask("ada", false, Need::Read(&k)), Ok(()));
        let denied = Err(Error::PermissionDenied);
        assert_eq!(ask("ada", false, Need::Read(&l)), denied);
        assert_eq!(ask("ada", false, Need::Root), denied);
        assert_eq!(ask("bob", false, Need::Read(&k)), denied);
        assert_eq!(ask("bob", false, Need::Root), Err(Error::UserNotFound));
        assert_eq!(ask("", false, Need::Root), Err(Error::UserNameEmpty));
        assert_eq!(ask("root", true, Need::Root), Err(Error::UserNameEmpty));
    }

    #[test]
    fn a_token_goes_before_a_certificate() {
        let shared = Shared::new(String::new(), NOW, None);
        let mut state = shared.lock();
        let auth = state.store.auth_mut();
        auth.add_user("root", Password::None).expect("a new name");
        auth.grant_role("root", "root").expect("it exists");
        auth.enable().expect("root is root");
        let caller = Caller {
            token: Some("nonsense".to_owned()),
            common_name: Some("root".to_owned()),
        };
        let refused = state.permit(NOW, &caller, Need::Nothing);
        assert_eq!(refused, Err(Error::InvalidToken));
        let token = state.tokens.issue("ada", "letters", NOW);
        let caller = Caller {
            token: Some(token),
            ..caller
        };
        assert_eq!(state.permit(NOW, &caller, Need::User), Ok(()));
        let refused = state.permit(NOW, &caller, Need::Root);
        assert_eq!(refused, Err(Error::UserNotFound));
    }
}
