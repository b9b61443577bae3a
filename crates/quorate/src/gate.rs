//! Fencing for resources outside etcd.

use std::fmt;

use crate::{Error, ErrorKind, Result, Revision};

/// Keeps former holders away from a resource outside etcd: the resource's side of a fencing token.
///
/// A new holder first [seals](TokenGate::seal) the resource with its token, and only then reads from
/// it. From then on nothing that bears a lower token is [accepted](TokenGate::accept). A check on
/// writes alone is not enough: the new holder could read before the old one's last accepted write, and
/// then overwrite it.
///
/// One gate guards one resource, and its state ([`TokenGate::highest`]) must be as durable as the
/// resource and change together with it. Tokens are comparable within one etcd cluster; after a restore
/// from a backup they may step back, and gates must be set back with them.
///
/// # Examples
///
/// ```
/// use quorate::{Revision, TokenGate};
///
/// let mut gate = TokenGate::new();
/// gate.seal(Revision(7))?;
/// assert!(gate.accept(Revision(7)).is_ok());
/// gate.seal(Revision(9))?; // the next holder
/// assert!(gate.accept(Revision(7)).is_err());
/// # Ok::<(), quorate::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenGate {
    highest: Revision,
}

impl TokenGate {
    /// A gate that has seen no token.
    pub const fn new() -> Self {
        Self {
            highest: Revision::ZERO,
        }
    }

    /// A gate that had seen tokens up to `highest` when its state was stored.
    pub const fn restore(highest: Revision) -> Self {
        Self { highest }
    }

    /// The highest token seen: the state to store with the resource.
    pub const fn highest(&self) -> Revision {
        self.highest
    }

    /// Shuts out every lower token from now on. A holder does this before it reads.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if a higher token was seen: a later holder is at work.
    pub fn seal(&mut self, token: Revision) -> Result<()> {
        self.accept(token)
    }

    /// Whether an operation that bears `token` may be done. The same token passes any number of times;
    /// a higher one seals as well.
    ///
    /// # Errors
    ///
    /// [`Lost`](ErrorKind::Lost) if a higher token was seen.
    pub fn accept(&mut self, token: Revision) -> Result<()> {
        if token < self.highest {
            let message = format!("token {token} is out of date: {} was seen", self.highest);
            return Err(Error::new(ErrorKind::Lost, message));
        }
        self.highest = token;
        Ok(())
    }
}

impl fmt::Display for TokenGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tokens from {}", self.highest)
    }
}
