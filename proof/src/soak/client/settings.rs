//! Configuration, as a document and as fields, changed all the time.

use std::{cell::RefCell, collections::BTreeMap, future::Future};

use futures_util::{FutureExt, future::LocalBoxFuture, stream::FuturesUnordered};
use quorate::{Config, ConfigWatch, ErrorKind, Fields, Op, Result};
use serde::{Deserialize, Serialize};

use super::{Agreed, Floor, probed};
use crate::torture::worker::millis;

const DOCUMENT: &str = "cfg/limits.json";
const PREFIX: &str = "cfg/fields/";
const WATCHES: usize = 2;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Limits {
    rate: u32,
    name: String,
}

impl Limits {
    fn random() -> Self {
        Self {
            rate: fastrand::u32(1..),
            name: format!("n{}", fastrand::u32(..)),
        }
    }
}

type Watches = RefCell<BTreeMap<usize, ConfigWatch<Limits>>>;

#[derive(Default)]
pub(super) struct Settings {
    document: Watches,
    fields: Watches,
}

fn document(client: &quorate::Client) -> Config<Limits> {
    let config = client.config::<Limits>(DOCUMENT);
    let config = config.default_value(Limits {
        rate: 1,
        name: String::new(),
    });
    config.validate(|limits| {
        if limits.rate > 0 {
            Ok(())
        } else {
            Err("the rate is 0")
        }
    })
}

fn fields(client: &quorate::Client) -> Config<Limits, Fields> {
    let config = client.config_prefix::<Limits>(PREFIX);
    config.default_value(Limits {
        rate: 1,
        name: String::new(),
    })
}

pub(super) fn work<'a>(floor: &'a Floor<'_>, all: &mut FuturesUnordered<LocalBoxFuture<'a, ()>>) {
    let step = async || change_document(floor).await;
    all.push(floor.churn("documents", millis(150), step).boxed_local());
    let step = async || change_fields(floor).await;
    all.push(floor.churn("fields", millis(150), step).boxed_local());
    for slot in 0..WATCHES {
        let once = async move || {
            let watches = &floor.settings.document;
            follow(watches, slot, document(&floor.client).watch()).await
        };
        all.push(
            floor
                .follow("document watches", millis(4000), once)
                .boxed_local(),
        );
        let once = async move || {
            let watches = &floor.settings.fields;
            follow(watches, slot, fields(&floor.client).watch()).await
        };
        all.push(
            floor
                .follow("field watches", millis(4000), once)
                .boxed_local(),
        );
    }
}

/// Every watch has what is stored.
pub(super) async fn agree(floor: &Floor<'_>) -> [(&'static str, Agreed); 2] {
    let whole = probed(document(&floor.probe).get()).await;
    let parts = probed(fields(&floor.probe).get()).await;
    [
        (
            "document watches",
            whole.and_then(|it| all_have(&floor.settings.document, &it)),
        ),
        (
            "field watches",
            parts.and_then(|it| all_have(&floor.settings.fields, &it)),
        ),
    ]
}

fn all_have(watches: &Watches, stored: &Limits) -> Agreed {
    let watches = watches.borrow();
    if watches.len() != WATCHES {
        return Err(format!("only {} are there", watches.len()));
    }
    for (slot, watch) in watches.iter() {
        let (current, stale, rejected) = (watch.current(), watch.is_stale(), watch.rejected());
        if *current != *stored || stale || rejected.is_some() {
            return Err(format!(
                "watch {slot} has {current:?}, stale: {stale}, rejected: {rejected:?}; \
                 the store has {stored:?}"
            ));
        }
    }
    Ok(())
}

async fn follow(
    watches: &Watches,
    slot: usize,
    opened: impl Future<Output = Result<ConfigWatch<Limits>>>,
) -> Result<()> {
    watches.borrow_mut().remove(&slot);
    let mut watch = match opened.await {
        // There is nothing that can be used, for a moment.
        Err(error) if error.kind() == ErrorKind::InvalidData => return Ok(()),
        opened => opened?,
    };
    watches.borrow_mut().insert(slot, watch.clone());
    loop {
        watch.next().await?;
    }
}

/// Changes the document; what it is at last can be used.
async fn change_document(floor: &Floor<'_>) -> Result<()> {
    let config = document(&floor.client);
    let spoilt = match fastrand::u8(..5) {
        0 => Some(Op::put(DOCUMENT, "{")),
        1 => Some(Op::put(DOCUMENT, r#"{"rate": 0, "name": "none"}"#)),
        2 => Some(Op::delete(DOCUMENT)),
        _ => None,
    };
    if let Some(spoilt) = spoilt {
        floor.replace(DOCUMENT, spoilt).await?;
    }
    config.set(&Limits::random()).await.map(drop)
}

async fn change_fields(floor: &Floor<'_>) -> Result<()> {
    let (rate, name) = (format!("{PREFIX}rate"), format!("{PREFIX}name"));
    if fastrand::u8(..5) == 0 {
        floor.replace(&rate, Op::put(&rate, "many")).await?;
    }
    let limits = Limits::random();
    let both = floor.client.txn();
    both.then(Op::put(rate, limits.rate.to_string()))
        .then(Op::put(name, limits.name))
        .commit()
        .await
        .map(drop)
}
