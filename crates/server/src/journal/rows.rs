//! What stands in the rows of the database: etcd's own messages.

use std::io;

use prost::{Message, bytes::Bytes};
use quorate_engine::{AuthRecord, Key, KeyValue, LeaseId, Record, Revision};
use quorate_wire::{
    authpb::{Role, User},
    mvccpb,
};

use crate::{
    auth::{permission_from_wire, permission_to_wire},
    convert::kv_to_wire,
};

/// The row of a change. Of a deletion it is the name and the revision alone, as etcd tells it: what
/// stands has a version.
pub(super) fn of_change(revision: Revision, key: Key, kv: Option<KeyValue>) -> Vec<u8> {
    let kv = kv.map_or_else(
        || mvccpb::KeyValue {
            key: key.into(),
            mod_revision: revision.0,
            ..mvccpb::KeyValue::default()
        },
        kv_to_wire,
    );
    kv.encode_to_vec()
}

/// Reads the row of a change.
pub(super) fn change(revision: i64, sub: i64, row: &[u8]) -> io::Result<Record> {
    // Key and value share what is copied here.
    let kv: mvccpb::KeyValue = decode(Bytes::copy_from_slice(row))?;
    let key = Key::from(kv.key);
    Ok(Record::Change {
        revision: Revision(revision),
        sub,
        kv: (kv.version != 0).then(|| KeyValue {
            key: key.clone(),
            value: kv.value.into(),
            create_revision: Revision(kv.create_revision),
            mod_revision: Revision(kv.mod_revision),
            version: kv.version,
            lease: LeaseId::from_wire(kv.lease),
        }),
        key,
    })
}

/// The rows of the users, by name.
pub(super) fn of_users(auth: &AuthRecord) -> impl Iterator<Item = (&str, Vec<u8>)> {
    auth.users.iter().map(|(name, roles)| {
        let user = User {
            name: name.clone().into(),
            roles: roles.clone(),
            ..User::default()
        };
        (name.as_str(), user.encode_to_vec())
    })
}

/// The rows of the roles, by name.
pub(super) fn of_roles(auth: &AuthRecord) -> impl Iterator<Item = (&str, Vec<u8>)> {
    auth.roles.iter().map(|(name, permissions)| {
        let role = Role {
            name: name.clone().into(),
            key_permission: permissions.iter().map(permission_to_wire).collect(),
        };
        (name.as_str(), role.encode_to_vec())
    })
}

/// Adds the user of a row.
pub(super) fn add_user(auth: &mut AuthRecord, name: &str, row: &[u8]) -> io::Result<()> {
    let user: User = decode(row)?;
    auth.users.push((name.to_owned(), user.roles));
    Ok(())
}

/// Adds the role of a row.
pub(super) fn add_role(auth: &mut AuthRecord, name: &str, row: &[u8]) -> io::Result<()> {
    let role: Role = decode(row)?;
    let permissions = role.key_permission.into_iter();
    let permissions = permissions.map(|permission| permission_from_wire(Some(permission)));
    let permissions = permissions
        .collect::<Result<_, _>>()
        .map_err(|status| invalid(status.message()))?;
    auth.roles.push((name.to_owned(), permissions));
    Ok(())
}

pub(super) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn decode<M: Message + Default>(row: impl prost::bytes::Buf) -> io::Result<M> {
    M::decode(row).map_err(|error| invalid(&error.to_string()))
}
