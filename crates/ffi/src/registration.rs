//! Registrations: an instance is there for as long as its process is.

use std::{mem::MaybeUninit, sync::Mutex};

use quorate::{EphemeralState, EphemeralStates, Instance, Registration};

use crate::{
    bytes::quorate_bytes,
    cancel::quorate_cancel,
    client::quorate_client,
    ephemeral::{QUORATE_OVER, numbers, released, states},
    error::{
        Failure, QUORATE_LOSS_RELEASED, guarded, infallible, quorate_code, quorate_error,
        quorate_loss,
    },
    events::Events,
    handle::{self, Kind},
    output::{optional, required, set},
    process::lock,
    service::{instance, quorate_instance, quorate_service_options, service},
    wait::Limit,
};

/// An instance that is registered, or comes back by itself.
///
/// To free it deletes its key in the background; quorate_registration_release does so and waits.
pub struct quorate_registration {
    /// Gone once it was released. One at a time uses it.
    registration: tokio::sync::Mutex<Option<Registration>>,
    /// For who looks meanwhile.
    state: Mutex<EphemeralStates>,
    events: Events<EphemeralState>,
}

impl Kind for quorate_registration {
    const NAME: &'static str = "quorate_registration";
}

impl quorate_registration {
    async fn change(&self, change: impl FnOnce(&Instance) -> Instance) -> Result<(), Failure> {
        let mut registration = self.registration.lock().await;
        let registration = registration.as_mut().ok_or_else(released)?;
        let instance = change(registration.instance());
        Ok(registration.set(instance).await?)
    }

    async fn release(&self) -> Result<(), Failure> {
        let registration = self.registration.lock().await.take();
        Ok(registration.ok_or_else(released)?.release().await?)
    }
}

/// Registers an instance of a service under an id, which is not empty and has no slash in it.
/// QUORATE_ALREADY_EXISTS if the id is taken, and not to be taken over.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_register(
    client: *const quorate_client,
    service: quorate_bytes,
    id: quorate_bytes,
    instance: Option<&quorate_instance>,
    options: Option<&quorate_service_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    registration: Option<&mut MaybeUninit<*mut quorate_registration>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(registration, "registration")?;
        let instance = self::instance(instance)?;
        let id = id.text("id")?;
        let used = handle::used(client)?;
        let service = self::service(&used.client, service, options)?;
        let call = service.register(id, instance);
        let registration = Limit::new(timeout_ms, cancel)?.run(&used.freed, call)?;
        *out = handle::open(quorate_registration {
            state: Mutex::new(registration.states()),
            events: Events::new(states(registration.states()))?,
            registration: tokio::sync::Mutex::new(Some(registration)),
        });
        Ok(())
    })
}

/// Tells clients something else of the instance, and waits until that is written; in a gap, until the
/// registration is back. If the call is cut off they are told all the same.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registration_set(
    registration: *mut quorate_registration,
    instance: Option<&quorate_instance>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let instance = self::instance(instance)?;
        let used = handle::used(registration)?;
        let call = used.change(|_| instance);
        Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)
    })
}

/// Asks clients to begin nothing new with the instance, or with `draining` false takes that back.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registration_drain(
    registration: *mut quorate_registration,
    draining: bool,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(registration)?;
        let call = used.change(|instance| instance.clone().draining(draining));
        Limit::of_write(timeout_ms, cancel)?.run(&used.freed, call)
    })
}

/// How the registration stands now: QUORATE_PRESENT, QUORATE_RECREATING or QUORATE_OVER. `*loss`, which
/// may be NULL, is how it was lost.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registration_state(
    registration: *const quorate_registration,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
) -> i32 {
    let loss = optional(loss);
    let (state, why) = infallible((QUORATE_OVER, QUORATE_LOSS_RELEASED), || {
        Ok(numbers(lock(&handle::used(registration)?.state).current()))
    });
    set(loss, why);
    state
}

/// Waits until the registration stands otherwise than was told last (at first: than present), and tells
/// how. After QUORATE_OVER comes QUORATE_END.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registration_next(
    registration: *mut quorate_registration,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    state: Option<&mut MaybeUninit<i32>>,
    loss: Option<&mut MaybeUninit<quorate_loss>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let (loss, out) = (optional(loss), required(state, "state")?);
        let used = handle::used(registration)?;
        let next = used.events.next();
        let (state, why) = numbers(Limit::new(timeout_ms, cancel)?.run(&used.freed, next)?);
        *out = state;
        set(loss, why);
        Ok(())
    })
}

/// A descriptor that is readable while quorate_registration_next would not wait.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registration_fd(
    registration: *const quorate_registration,
    fd: Option<&mut MaybeUninit<i32>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(fd, "fd")?;
        *out = handle::used(registration)?.events.fd()?;
        Ok(())
    })
}

/// Deletes the instance, and waits until that is confirmed. QUORATE_LOST if it was over before.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registration_release(
    registration: *mut quorate_registration,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let used = handle::used(registration)?;
        Limit::of_end(timeout_ms, cancel)?.run(&used.freed, used.release())
    })
}

/// Frees it; NULL is accepted. The instance is deleted, in the background.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_registration_free(registration: *mut quorate_registration) {
    infallible((), || {
        handle::free(registration);
        Ok(())
    });
}
