//! What etcd's members keep in their databases, and the journal in its own: etcd's messages.

use std::io;

use bytes::{Buf, Bytes};
use prost::Message;
use quorate_engine::{AuthRecord, Key, KeyValue, LeaseId, Password, Record, Revision, User};
use quorate_wire::{authpb, mvccpb};

use crate::{
    convert::kv_to_wire,
    services::auth::{permission_from_wire, permission_to_wire},
};

/// The row of a change. Of a deletion it is the name alone: what stands has a version.
pub(crate) fn of_change(key: Key, kv: Option<KeyValue>) -> Vec<u8> {
    let kv = kv.map_or_else(
        || mvccpb::KeyValue {
            key: key.into(),
            ..mvccpb::KeyValue::default()
        },
        kv_to_wire,
    );
    kv.encode_to_vec()
}

/// Reads the row of a change.
pub(crate) fn change(revision: i64, sub: i64, row: &[u8]) -> io::Result<Record> {
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
pub(crate) fn of_users(auth: &AuthRecord) -> impl Iterator<Item = (&str, Vec<u8>)> {
    auth.users.iter().map(|(name, user)| {
        let (password, no_password) = match &user.password {
            Password::Hash(hash) => (hash.clone(), false),
            Password::None => (Bytes::new(), true),
        };
        let user = authpb::User {
            name: name.clone().into(),
            password,
            roles: user.roles.iter().cloned().collect(),
            options: Some(authpb::UserAddOptions { no_password }),
        };
        (name.as_str(), user.encode_to_vec())
    })
}

/// The rows of the roles, by name.
pub(crate) fn of_roles(auth: &AuthRecord) -> impl Iterator<Item = (&str, Vec<u8>)> {
    auth.roles.iter().map(|(name, permissions)| {
        let role = authpb::Role {
            name: name.clone().into(),
            key_permission: permissions.iter().map(permission_to_wire).collect(),
        };
        (name.as_str(), role.encode_to_vec())
    })
}

/// Adds the user of a row.
pub(crate) fn add_user(auth: &mut AuthRecord, name: &str, row: &[u8]) -> io::Result<()> {
    let user: authpb::User = decode(row)?;
    let password = match user.options {
        Some(authpb::UserAddOptions { no_password: true }) => Password::None,
        _ => Password::Hash(user.password),
    };
    let roles = user.roles.into_iter().collect();
    auth.users.push((name.to_owned(), User { password, roles }));
    Ok(())
}

/// Adds the role of a row.
pub(crate) fn add_role(auth: &mut AuthRecord, name: &str, row: &[u8]) -> io::Result<()> {
    let role: authpb::Role = decode(row)?;
    let permissions = role.key_permission.into_iter();
    let permissions = permissions.map(permission_from_wire);
    let permissions = permissions
        .collect::<Result<_, _>>()
        .map_err(|status| invalid(status.message()))?;
    auth.roles.push((name.to_owned(), permissions));
    Ok(())
}

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn decode<M: Message + Default>(row: impl Buf) -> io::Result<M> {
    M::decode(row).map_err(|error| invalid(&error.to_string()))
}
