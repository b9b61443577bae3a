//! A descriptor that is readable while something waits.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::error::{Failure, QUORATE_INTERNAL};

/// A descriptor to poll. Where the system has no eventfd it is a pipe.
#[derive(Debug)]
pub(crate) struct Signal {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    event: nix::sys::eventfd::EventFd,
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    pipe: (std::os::fd::OwnedFd, std::os::fd::OwnedFd),
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
impl Signal {
    pub(crate) fn new() -> Result<Self, Failure> {
        use nix::sys::eventfd::{EfdFlags, EventFd};

        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags).map_err(refused)?;
        Ok(Self { event })
    }

    /// The end that is polled.
    fn reader(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// The end that is written to.
    fn writer(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
impl Signal {
    pub(crate) fn new() -> Result<Self, Failure> {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

        let pipe = nix::unistd::pipe().map_err(refused)?;
        for end in [&pipe.0, &pipe.1] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(refused)?;
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(refused)?;
        }
        Ok(Self { pipe })
    }

    fn reader(&self) -> BorrowedFd<'_> {
        self.pipe.0.as_fd()
    }

    fn writer(&self) -> BorrowedFd<'_> {
        self.pipe.1.as_fd()
    }
}

impl Signal {
    /// Makes it readable.
    pub(crate) fn set(&self) {
        // It fails only if so much was written that it is readable in any case.
        let _ = nix::unistd::write(self.writer(), &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) {
        let mut read = [0; 64];
        while matches!(nix::unistd::read(self.reader(), &mut read), Ok(64)) {}
    }

    /// The number to poll.
    pub(crate) fn number(&self) -> RawFd {
        self.reader().as_raw_fd()
    }

    /// The number to write to.
    pub(crate) fn writer_number(&self) -> RawFd {
        self.writer().as_raw_fd()
    }
}

impl AsRawFd for Signal {
    fn as_raw_fd(&self) -> RawFd {
        self.number()
    }
}

fn refused(errno: nix::errno::Errno) -> Failure {
    let message = format!("no descriptor can be made: {errno}");
    Failure::new(QUORATE_INTERNAL, message)
}
