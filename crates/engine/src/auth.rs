//! Users, roles and permissions: the books that etcd keeps of them.
//!
//! Passwords are not kept, since nobody authenticates here.

use std::collections::{BTreeMap, BTreeSet};

use crate::{AuthRecord, Error, KeyRange, RangeEnd, Revision};

/// The name of the user, and of the role, that may do everything.
const ROOT: &str = "root";

/// A right to keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What may be done.
    pub kind: PermissionKind,
    /// The keys.
    pub keys: KeyRange,
}

/// What a [`Permission`] allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PermissionKind {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Both.
    ReadWrite,
}

/// Users with their roles, and roles with their permissions.
#[derive(Debug)]
pub struct Auth {
    /// The names of each user's roles.
    users: BTreeMap<String, BTreeSet<String>>,
    /// The permissions of each role, in the order of their first keys.
    roles: BTreeMap<String, Vec<Permission>>,
    /// Counts the changes.
    revision: Revision,
    enabled: bool,
}

impl Auth {
    /// Whether users must authenticate.
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The revision of the books: it rises by one with every change.
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Lets users authenticate, for the books: from now on `root` is protected.
    ///
    /// # Errors
    ///
    /// [`Error::RootUserNotFound`], or [`Error::RootRoleNotGranted`].
    pub fn enable(&mut self) -> Result<(), Error> {
        let root = self.users.get(ROOT).ok_or(Error::RootUserNotFound)?;
        if !root.contains(ROOT) {
            return Err(Error::RootRoleNotGranted);
        }
        self.enabled = true;
        Ok(())
    }

    /// Lets nobody authenticate.
    pub const fn disable(&mut self) {
        if self.enabled {
            self.enabled = false;
            self.revision = self.revision.next();
        }
    }

    /// The names of all users.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// Adds a user without roles.
    ///
    /// # Errors
    ///
    /// [`Error::UserNameEmpty`], or [`Error::UserExists`].
    pub fn add_user(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::UserNameEmpty);
        }
        if self.users.contains_key(name) {
            return Err(Error::UserExists);
        }
        self.users.insert(name.to_owned(), BTreeSet::new());
        self.changed()
    }

    /// Deletes a user.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], or [`Error::InvalidAuthManagement`] for `root` while users must
    /// authenticate.
    pub fn delete_user(&mut self, name: &str) -> Result<(), Error> {
        if self.enabled && name == ROOT {
            return Err(Error::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(Error::UserNotFound)?;
        self.changed()
    }

    /// Notes that a user has another password.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`].
    pub fn change_password(&mut self, name: &str) -> Result<(), Error> {
        if !self.users.contains_key(name) {
            return Err(Error::UserNotFound);
        }
        self.changed()
    }

    /// The names of a user's roles.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`].
    pub fn roles_of(&self, user: &str) -> Result<impl Iterator<Item = &str>, Error> {
        let roles = self.users.get(user).ok_or(Error::UserNotFound)?;
        Ok(roles.iter().map(String::as_str))
    }

    /// Gives a role to a user; one that he has already changes nothing. The role `root` need not
    /// exist.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], or [`Error::RoleNotFound`].
    pub fn grant_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        let roles = self.users.get_mut(user).ok_or(Error::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(Error::RoleNotFound);
        }
        if !roles.insert(role.to_owned()) {
            return Ok(());
        }
        self.changed()
    }

    /// Takes a role from a user.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], [`Error::RoleNotGranted`], or [`Error::InvalidAuthManagement`] for
    /// `root` itself while users must authenticate.
    pub fn revoke_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        if self.enabled && user == ROOT && role == ROOT {
            return Err(Error::InvalidAuthManagement);
        }
        let roles = self.users.get_mut(user).ok_or(Error::UserNotFound)?;
        if !roles.remove(role) {
            return Err(Error::RoleNotGranted);
        }
        self.changed()
    }

    /// The names of all roles.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str)
    }

    /// Adds a role without permissions.
    ///
    /// # Errors
    ///
    /// [`Error::RoleNameEmpty`], or [`Error::RoleExists`].
    pub fn add_role(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::RoleNameEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Error::RoleExists);
        }
        self.roles.insert(name.to_owned(), Vec::new());
        self.changed()
    }

    /// Deletes a role, and takes it from every user.
    ///
    /// # Errors
    ///
    /// [`Error::RoleNotFound`], or [`Error::InvalidAuthManagement`] for `root` while users must
    /// authenticate.
    pub fn delete_role(&mut self, name: &str) -> Result<(), Error> {
        if self.enabled && name == ROOT {
            return Err(Error::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(Error::RoleNotFound)?;
        for roles in self.users.values_mut() {
            roles.remove(name);
        }
        self.changed()
    }

    /// What a role allows: everything, if it is `root`, whatever it was given.
    ///
    /// # Errors
    ///
    /// [`Error::RoleNotFound`].
    pub fn permissions(&self, role: &str) -> Result<Vec<Permission>, Error> {
        let permissions = self.roles.get(role).ok_or(Error::RoleNotFound)?;
        if role == ROOT {
            return Ok(vec![Permission {
                kind: PermissionKind::ReadWrite,
                keys: KeyRange::from(b""),
            }]);
        }
        Ok(permissions.clone())
    }

    /// Gives a permission to a role.
    ///
    /// # Errors
    ///
    /// [`Error::RoleNotFound`], or [`Error::InvalidAuthManagement`] if the range has no key.
    pub fn grant(&mut self, role: &str, permission: Permission) -> Result<(), Error> {
        let keys = &permission.keys;
        if keys.start.is_empty() || matches!(&keys.end, RangeEnd::Before(end) if *end <= keys.start)
        {
            return Err(Error::InvalidAuthManagement);
        }
        let permissions = self.roles.get_mut(role).ok_or(Error::RoleNotFound)?;
        // Of several permissions with one first key etcd looks at the first alone.
        let at = permissions.partition_point(|other| other.keys.start < keys.start);
        match permissions.get_mut(at) {
            Some(same) if same.keys == *keys => same.kind = permission.kind,
            _ => {
                let end = permissions.partition_point(|other| other.keys.start <= keys.start);
                permissions.insert(end, permission);
            }
        }
        self.changed()
    }

    /// Takes the permissions on exactly these keys from a role.
    ///
    /// # Errors
    ///
    /// [`Error::RoleNotFound`], or [`Error::PermissionNotGranted`].
    pub fn revoke(&mut self, role: &str, keys: &KeyRange) -> Result<(), Error> {
        let permissions = self.roles.get_mut(role).ok_or(Error::RoleNotFound)?;
        let count = permissions.len();
        permissions.retain(|permission| permission.keys != *keys);
        if permissions.len() == count {
            return Err(Error::PermissionNotGranted);
        }
        self.changed()
    }

    /// The books as they are written down.
    pub(crate) fn to_record(&self) -> AuthRecord {
        let users = self.users.iter();
        let roles = self.roles.iter();
        AuthRecord {
            enabled: self.enabled,
            revision: self.revision,
            users: users
                .map(|(name, roles)| (name.clone(), roles.iter().cloned().collect()))
                .collect(),
            roles: roles
                .map(|(name, permissions)| (name.clone(), permissions.clone()))
                .collect(),
        }
    }

    /// The books that were written down.
    pub(crate) fn from_record(record: AuthRecord) -> Self {
        let users = record.users.into_iter();
        Self {
            users: users
                .map(|(name, roles)| (name, roles.into_iter().collect()))
                .collect(),
            roles: record.roles.into_iter().collect(),
            revision: record.revision,
            enabled: record.enabled,
        }
    }

    /// Counts a change that was made.
    #[allow(clippy::unnecessary_wraps)] // every change ends with it
    const fn changed(&mut self) -> Result<(), Error> {
        self.revision = self.revision.next();
        Ok(())
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            revision: Revision(1),
            enabled: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: KeyRange) -> Permission {
        Permission {
            kind: PermissionKind::Read,
            keys,
        }
    }

    #[test]
    fn names_are_unique_and_not_empty() {
        let mut auth = Auth::default();
        assert_eq!(auth.add_user("u"), Ok(()));
        assert_eq!(auth.add_user("u"), Err(Error::UserExists));
        assert_eq!(auth.add_user(""), Err(Error::UserNameEmpty));
        assert_eq!(auth.add_role("r"), Ok(()));
        assert_eq!(auth.add_role("r"), Err(Error::RoleExists));
        assert_eq!(auth.add_role(""), Err(Error::RoleNameEmpty));
        assert_eq!(auth.revision(), Revision(3));
    }

    #[test]
    fn a_deleted_role_is_taken_from_its_users() {
        let mut auth = Auth::default();
        auth.add_user("u").expect("a new name");
        auth.add_role("r").expect("a new name");
        assert_eq!(auth.grant_role("u", "other"), Err(Error::RoleNotFound));
        for _ in 0..2 {
            auth.grant_role("u", "r").expect("both exist");
        }
        assert_eq!(auth.revision(), Revision(4));
        auth.delete_role("r").expect("it exists");
        assert_eq!(auth.roles_of("u").expect("it exists").count(), 0);
        assert_eq!(auth.revoke_role("u", "r"), Err(Error::RoleNotGranted));
    }

    #[test]
    fn permissions_are_kept_by_range() {
        let mut auth = Auth::default();
        auth.add_role("r").expect("a new name");
        assert_eq!(
            auth.grant("r", read(KeyRange::between("b", "a"))),
            Err(Error::InvalidAuthManagement)
        );
        auth.grant("r", read(KeyRange::key("b")))
            .expect("a good range");
        auth.grant("r", read(KeyRange::prefix("a")))
            .expect("a good range");
        let write = Permission {
            kind: PermissionKind::Write,
            keys: KeyRange::key("b"),
        };
        auth.grant("r", write.clone()).expect("a good range");
        assert_eq!(
            auth.permissions("r"),
            Ok(vec![read(KeyRange::prefix("a")), write])
        );
        assert_eq!(
            auth.revoke("r", &KeyRange::key("a")),
            Err(Error::PermissionNotGranted)
        );
        assert_eq!(auth.revoke("r", &KeyRange::key("b")), Ok(()));
    }

    #[test]
    fn root_is_protected_while_users_must_authenticate() {
        let mut auth = Auth::default();
        assert_eq!(auth.enable(), Err(Error::RootUserNotFound));
        auth.add_user(ROOT).expect("a new name");
        assert_eq!(auth.enable(), Err(Error::RootRoleNotGranted));
        auth.grant_role(ROOT, ROOT)
            .expect("the role root need not exist");
        auth.enable().expect("root is root");
        assert_eq!(auth.delete_user(ROOT), Err(Error::InvalidAuthManagement));
        assert_eq!(
            auth.revoke_role(ROOT, ROOT),
            Err(Error::InvalidAuthManagement)
        );
        auth.disable();
        assert_eq!(auth.delete_user(ROOT), Ok(()));
    }
}
