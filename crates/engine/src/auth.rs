//! Users, roles and permissions: the books that etcd keeps of them, and what they allow.
//!
//! Who asks is for the caller to find out: a password is kept as the hash that the caller made of it.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;

use crate::{Error, KeyRange, RangeEnd, Revision};

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

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What he proves himself by.
    pub password: Password,
    /// The names of his roles.
    pub roles: BTreeSet<String>,
}

/// What a [`User`] proves himself by.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The hash of a password. No password fits an empty one.
    Hash(Bytes),
    /// No password at all: such a user has a certificate.
    None,
}

/// Shows no hash.
impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash(_) => "Hash",
            Self::None => "None",
        })
    }
}

/// Users with their roles, and roles with their permissions.
#[derive(Clone, Debug)]
pub struct Auth {
    users: BTreeMap<String, User>,
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
        if !root.roles.contains(ROOT) {
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

    /// A user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Adds a user without roles.
    ///
    /// # Errors
    ///
    /// [`Error::UserNameEmpty`], or [`Error::UserExists`].
    pub fn add_user(&mut self, name: &str, password: Password) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::UserNameEmpty);
        }
        if self.users.contains_key(name) {
            return Err(Error::UserExists);
        }
        let roles = BTreeSet::new();
        self.users.insert(name.to_owned(), User { password, roles });
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

    /// Gives a user another password. One that has none stays without.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`].
    pub fn change_password(&mut self, name: &str, hash: Bytes) -> Result<(), Error> {
        let user = self.users.get_mut(name).ok_or(Error::UserNotFound)?;
        if let Password::Hash(password) = &mut user.password {
            *password = hash;
        }
        self.changed()
    }

    /// The names of a user's roles.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`].
    pub fn roles_of(&self, user: &str) -> Result<impl Iterator<Item = &str>, Error> {
        let user = self.users.get(user).ok_or(Error::UserNotFound)?;
        Ok(user.roles.iter().map(String::as_str))
    }

    /// Gives a role to a user; one that he has already changes nothing. The role `root` need not
    /// exist.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`], or [`Error::RoleNotFound`].
    pub fn grant_role(&mut self, user: &str, role: &str) -> Result<(), Error> {
        let user = self.users.get_mut(user).ok_or(Error::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(Error::RoleNotFound);
        }
        if !user.roles.insert(role.to_owned()) {
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
        let user = self.users.get_mut(user).ok_or(Error::UserNotFound)?;
        if !user.roles.remove(role) {
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
        for user in self.users.values_mut() {
            user.roles.remove(name);
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

    /// Whether a user may do everything.
    pub fn is_root(&self, user: &str) -> bool {
        self.has_role(user, ROOT)
    }

    /// Whether a user has a role.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        let user = self.users.get(user);
        user.is_some_and(|user| user.roles.contains(role))
    }

    /// Tells whether a user may do this to all these keys, by all that his roles allow together. A
    /// range without a key is allowed to whom its first key is allowed, as in etcd.
    ///
    /// # Errors
    ///
    /// [`Error::PermissionDenied`].
    pub fn check(&self, user: &str, kind: PermissionKind, keys: &KeyRange) -> Result<(), Error> {
        let user = self.users.get(user).ok_or(Error::PermissionDenied)?;
        if user.roles.contains(ROOT) {
            return Ok(());
        }
        let granted = || {
            let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
            roles.flatten()
        };
        let allows = |wanted| {
            let kinds = [wanted, PermissionKind::ReadWrite];
            let of_kind = granted().filter(|it| kinds.contains(&it.kind));
            covers(of_kind.map(|it| &it.keys), keys)
        };
        let is_allowed = match kind {
            PermissionKind::Read | PermissionKind::Write => allows(kind),
            PermissionKind::ReadWrite => {
                allows(PermissionKind::Read) && allows(PermissionKind::Write)
            }
        };
        if !is_allowed {
            return Err(Error::PermissionDenied);
        }
        Ok(())
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

/// Whether ranges, which may overlap, hold every key of one.
fn covers<'a>(ranges: impl Iterator<Item = &'a KeyRange>, keys: &KeyRange) -> bool {
    if keys.is_single() {
        let mut ranges = ranges;
        return ranges.any(|range| range.contains(&keys.start));
    }
    let mut ranges: Vec<&KeyRange> = ranges.collect();
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    // All keys from the first one to before this one are covered.
    let mut reach = Cow::Borrowed(&*keys.start);
    for range in ranges {
        if *range.start > *reach {
            break;
        }
        match end_of(range) {
            None => return true,
            Some(end) => reach = reach.max(end),
        }
    }
    *reach > *keys.start && end_of(keys).is_some_and(|end| reach >= end)
}

/// The first key behind a range, if it has an end.
fn end_of(range: &KeyRange) -> Option<Cow<'_, [u8]>> {
    match &range.end {
        RangeEnd::Single => Some(Cow::Owned([&*range.start, b"\0"].concat())),
        RangeEnd::Before(end) => Some(Cow::Borrowed(end)),
        RangeEnd::Unbounded => None,
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

    fn add(auth: &mut Auth, name: &str) -> Result<(), Error> {
        auth.add_user(name, Password::None)
    }

    #[test]
    fn permissions_cover_together_what_none_covers_alone() {
        let mut auth = Auth::default();
        add(&mut auth, "u").expect("a new name");
        for (role, kind, keys) in [
            ("r", PermissionKind::Read, KeyRange::between("b", "d")),
            ("r", PermissionKind::Read, KeyRange::key("d")),
            (
                "s",
                PermissionKind::ReadWrite,
                KeyRange::between("d\0", "f"),
            ),
            ("s", PermissionKind::Write, KeyRange::from("e")),
        ] {
            let _ = auth.add_role(role);
            auth.grant(role, Permission { kind, keys })
                .expect("a good range");
            auth.grant_role("u", role).expect("both exist");
        }
        let read = |keys| auth.check("u", PermissionKind::Read, &keys).is_ok();
        assert!(read(KeyRange::between("b", "f")));
        assert!(read(KeyRange::between("c", "d\0")));
        assert!(read(KeyRange::key("d")));
        assert!(!read(KeyRange::between("a", "c")));
        assert!(!read(KeyRange::between("b", "f\0")));
        assert!(!read(KeyRange::from("b")));
        assert!(!read(KeyRange::key("f")));
        let write = |keys| auth.check("u", PermissionKind::Write, &keys).is_ok();
        assert!(write(KeyRange::from("d\0")));
        assert!(!write(KeyRange::key("d")));
        assert!(read(KeyRange::between("b", "a")) && !read(KeyRange::between("g", "a")));
        let both = |keys| auth.check("u", PermissionKind::ReadWrite, &keys).is_ok();
        assert!(both(KeyRange::key("e")) && !both(KeyRange::key("g")));
        let nobody = auth.check("v", PermissionKind::Read, &KeyRange::key("b"));
        assert_eq!(nobody, Err(Error::PermissionDenied));
    }

    #[test]
    fn names_are_unique_and_not_empty() {
        let mut auth = Auth::default();
        assert_eq!(add(&mut auth, "u"), Ok(()));
        assert_eq!(add(&mut auth, "u"), Err(Error::UserExists));
        assert_eq!(add(&mut auth, ""), Err(Error::UserNameEmpty));
        assert_eq!(auth.add_role("r"), Ok(()));
        assert_eq!(auth.add_role("r"), Err(Error::RoleExists));
        assert_eq!(auth.add_role(""), Err(Error::RoleNameEmpty));
        assert_eq!(auth.revision(), Revision(3));
    }

    #[test]
    fn a_deleted_role_is_taken_from_its_users() {
        let mut auth = Auth::default();
        add(&mut auth, "u").expect("a new name");
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
        add(&mut auth, ROOT).expect("a new name");
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
