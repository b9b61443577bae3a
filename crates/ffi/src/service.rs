//! Services and their instances.

use std::{collections::BTreeMap, ffi::c_char, mem::MaybeUninit};

use quorate::{Client, Instance, Instances, Layout, Service};

use crate::{
    bytes::{optional_millis, quorate_bytes, unreserved},
    cancel::quorate_cancel,
    client::quorate_client,
    error::{Failure, guarded, infallible, quorate_code, quorate_error},
    handle,
    output::{self, Arena, give, required},
    wait::Limit,
};

/// How instances are written: `services/NAME/ID`, as JSON.
pub const QUORATE_LAYOUT_QUORATE: i32 = 0;
/// How instances are written: `NAME/ID`, as the naming package of etcd's Go client does.
pub const QUORATE_LAYOUT_GRPC: i32 = 1;
/// How instances are written: `NAME/ID` with the address as the value; without room for anything else.
pub const QUORATE_LAYOUT_RAW: i32 = 2;

/// Where a service is, and how instances register. Initialize it by {0}.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_service_options {
    /// What stands before the name in the keys; empty for `services/`, or nothing in a layout that others
    /// share.
    pub root: quorate_bytes,
    /// QUORATE_LAYOUT_QUORATE and so on.
    pub layout: i32,
    /// Registers even if the id is taken. Whoever had it loses it for good.
    pub take_over: bool,
    /// Registers under a session with this time to live, rounded up to whole seconds, which the client's
    /// keys that ask for the same share; 0 for the session that the client's recipes share.
    pub ttl_ms: i64,
    /// Must be zero.
    pub reserved: [u64; 4],
}

/// What is told of an instance when it registers. Initialize it by {0}, and set the address and the weight.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct quorate_instance {
    /// Where it is reached, such as `host:port`.
    pub address: quorate_bytes,
    /// A JSON object; empty for none.
    pub metadata: quorate_bytes,
    /// How much of the load it should get in proportion to others; 0 for none. 1 is usual.
    pub weight: u32,
    /// Whether it should get nothing new, since it is about to leave.
    pub draining: bool,
}

/// An instance that is registered.
#[repr(C)]
pub struct quorate_registered {
    /// Its id.
    pub id: quorate_bytes,
    /// What is told of it.
    pub instance: quorate_instance,
}

/// A key of a service that is no instance.
#[repr(C)]
pub struct quorate_malformed {
    /// The key.
    pub key: quorate_bytes,
    /// What is wrong.
    pub reason: *const c_char,
}

/// The instances of a service at one revision, in the order of their ids. Free it by
/// quorate_instances_free.
#[repr(C)]
pub struct quorate_instances {
    /// They; NULL if there are none.
    pub instances: *const quorate_registered,
    /// How many.
    pub len: usize,
    /// The revision at which they stood.
    pub revision: i64,
    /// Whether the store may know better, as while there is no connection.
    pub stale: bool,
    /// The keys of the service that cannot be understood.
    pub malformed: *const quorate_malformed,
    /// How many.
    pub malformed_len: usize,
}

/// A service that has instances.
#[repr(C)]
pub struct quorate_service_count {
    /// Its name.
    pub name: quorate_bytes,
    /// How many instances it has.
    pub instances: u64,
}

/// The services that have instances. Free it by quorate_services_free.
#[repr(C)]
pub struct quorate_services {
    /// They; NULL if there are none.
    pub services: *const quorate_service_count,
    /// How many.
    pub len: usize,
}

/// Reads the instances of a service once. To see them change there is quorate_tracker.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_service_instances(
    client: *const quorate_client,
    service: quorate_bytes,
    options: Option<&quorate_service_options>,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    instances: Option<&mut MaybeUninit<*mut quorate_instances>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(instances, "instances")?;
        let used = handle::used(client)?;
        let service = self::service(&used.client, service, options)?;
        let found = Limit::new(timeout_ms, cancel)?.run(&used.freed, service.instances())?;
        *out = give_instances(&found, false);
        Ok(())
    })
}

/// Lists the services that have instances, of those in the usual layout and root.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_service_list(
    client: *const quorate_client,
    timeout_ms: i64,
    cancel: *const quorate_cancel,
    services: Option<&mut MaybeUninit<*mut quorate_services>>,
    error: Option<&mut MaybeUninit<*mut quorate_error>>,
) -> quorate_code {
    guarded(error, || {
        let out = required(services, "services")?;
        let used = handle::used(client)?;
        let call = used.client.services();
        let found: BTreeMap<String, usize> =
            Limit::new(timeout_ms, cancel)?.run(&used.freed, call)?;
        *out = give(|arena| {
            let (services, len) =
                arena.collect(&found, |(name, count), arena| quorate_service_count {
                    name: arena.bytes(name.as_bytes()),
                    instances: *count as u64,
                });
            quorate_services { services, len }
        });
        Ok(())
    })
}

/// Frees instances; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_instances_free(instances: *mut quorate_instances) {
    infallible((), || {
        output::take_back(instances);
        Ok(())
    });
}

/// Frees services; NULL is accepted.
#[unsafe(no_mangle)]
pub extern "C" fn quorate_services_free(services: *mut quorate_services) {
    infallible((), || {
        output::take_back(services);
        Ok(())
    });
}

/// A service with its options.
pub(crate) fn service(
    client: &Client,
    name: quorate_bytes,
    options: Option<&quorate_service_options>,
) -> Result<Service, Failure> {
    let mut service = client.service(name.text("service")?);
    let Some(options) = options else {
        return Ok(service);
    };
    unreserved(&options.reserved)?;
    service = service.layout(match options.layout {
        QUORATE_LAYOUT_QUORATE => Layout::Quorate,
        QUORATE_LAYOUT_GRPC => Layout::Grpc,
        QUORATE_LAYOUT_RAW => Layout::Raw,
        layout => return Err(Failure::invalid(format!("{layout} is no layout"))),
    });
    if let Some(root) = options.root.optional_text("root")? {
        service = service.root(root);
    }
    if let Some(ttl) = optional_millis(options.ttl_ms, "time to live")? {
        service = service.ttl(ttl);
    }
    if options.take_over {
        service = service.take_over();
    }
    Ok(service)
}

/// An instance as C describes it.
pub(crate) fn instance(instance: Option<&quorate_instance>) -> Result<Instance, Failure> {
    let Some(given) = instance else {
        return Err(Failure::invalid("the instance is NULL"));
    };
    let mut instance = Instance::new(given.address.text("address")?)
        .weight(given.weight)
        .draining(given.draining);
    if let Some(metadata) = given.metadata.optional_text("metadata")? {
        let json: serde_json::Value = serde_json::from_str(metadata)
            .map_err(|error| Failure::invalid(format!("the metadata are no JSON: {error}")))?;
        instance = instance.with_metadata(&json)?;
    }
    Ok(instance)
}

/// An instance for C.
pub(crate) fn lay_registered(
    id: &str,
    instance: &Instance,
    arena: &mut Arena,
) -> quorate_registered {
    quorate_registered {
        id: arena.bytes(id.as_bytes()),
        instance: quorate_instance {
            address: arena.bytes(instance.address.as_bytes()),
            metadata: arena.bytes(instance.metadata_text().as_bytes()),
            weight: instance.weight,
            draining: instance.draining,
        },
    }
}

pub(crate) fn give_instances(instances: &Instances, stale: bool) -> *mut quorate_instances {
    give(|arena| {
        let revision = instances.revision().0;
        let (malformed, malformed_len) =
            arena.collect(instances.malformed(), |(key, why), arena| {
                quorate_malformed {
                    key: arena.bytes(key),
                    reason: arena.text(why),
                }
            });
        let (instances, len) = arena.collect(instances.iter(), |(id, instance), arena| {
            lay_registered(id, instance, arena)
        });
        quorate_instances {
            instances,
            len,
            revision,
            stale,
            malformed,
            malformed_len,
        }
    })
}
