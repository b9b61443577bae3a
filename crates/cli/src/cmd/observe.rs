//! `observe`: the keys as they are, then every change of them.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, process::ExitCode};

use futures_util::TryStreamExt;
use nix::sys::signal::Signal;
use quorate::{Client, Event, KeyValue, Observed, Observer, Range, Revision, Snapshot};
use serde_json::{Value as Json, json};

use super::keys;
use crate::{
    args,
    failure::{Failure, complain},
    hold::{signalled, unless_ended},
    hook::{Hook, Variable},
    output::{Output, bytes, key_value},
    signals::Signals,
};

pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    mut args: args::Observe,
) -> Result<ExitCode, Failure> {
    let hook = match args.exec.take() {
        Some(script) => Some(Hook::shell(script)),
        None if args.command.is_empty() => None,
        None => Some(Hook::new(std::mem::take(&mut args.command))),
    };
    let (stop_on_failure, prev) = (args.stop_on_failure, args.prev);
    let Some(hook) = hook else {
        let mut observer = observer(client, args).await?;
        while let Some(observed) = observer.try_next().await? {
            print(out, &observed, prev)?;
            // A reader should see a change when it happens.
            out.flush()?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut signals = Signals::of(ENDING).map_err(Failure::System)?;
    let mut observer = match unless_ended(&mut signals, observer(client, args)).await {
        Ok(observer) => observer?,
        Err(signal) => return Ok(signalled(signal)),
    };
    loop {
        // While a command runs nothing is read. What the observer cannot keep meanwhile it reads again.
        let observed = match unless_ended(&mut signals, observer.try_next()).await {
            Ok(observed) => observed?,
            Err(signal) => return Ok(signalled(signal)),
        };
        let Some(observed) = observed else {
            return Ok(ExitCode::SUCCESS);
        };
        for happening in Happening::of(&observed) {
            let line = format!("{}\n", happening.json(prev));
            let ran = hook
                .run(happening.variables(), line.as_bytes(), &mut signals)
                .await;
            if !ran.outcome.is_success() {
                complain(&format!("{}: {}", happening.name(), ran.outcome));
            }
            if let Some(signal) = ran.signal {
                return Ok(signalled(signal));
            }
            if stop_on_failure && !ran.outcome.is_success() {
                return Ok(ExitCode::from(ran.outcome.code()));
            }
        }
    }
}

async fn observer(client: &Client, args: args::Observe) -> Result<Observer, Failure> {
    let keys = keys(args.name, !args.exact);
    // An observer waits for as long as no server answers; a read tells so.
    let probe = Range::new(keys.clone()).keys_only().limit(1);
    let now = client.range(probe).await?.header.revision;
    let mut observer = client.observe(keys);
    if let Some(revision) = args.start.from {
        observer = observer.from(Revision(revision));
    } else if args.start.from_now {
        observer = observer.from(now.next());
    } else if args.start.from_oldest {
        observer = observer.from_oldest();
    }
    if args.prev {
        observer = observer.prev_kv();
    }
    if args.puts {
        observer = observer.puts_only();
    }
    if args.deletes {
        observer = observer.deletes_only();
    }
    if args.until_deleted {
        observer = observer.until_deleted();
    }
    Ok(observer)
}

fn print(out: &mut Output, observed: &Observed, prev: bool) -> Result<(), Failure> {
    for happening in Happening::of(observed) {
        match happening {
            Happening::Reset(all) => {
                out.text_only(&[b"reset", all.revision.to_string().as_bytes()])?;
                for kv in &all.kvs {
                    out.text_only(&[b"key", &kv.key, &kv.value])?;
                }
            }
            Happening::Change(Event::Put { kv, prev }) => {
                let prev = prev.as_ref().map(|prev| prev.value.as_ref());
                let fields = [b"put".as_slice(), &kv.key, &kv.value].into_iter();
                out.text_only(&fields.chain(prev).collect::<Vec<_>>())?;
            }
            Happening::Change(Event::Delete { key, prev, .. }) => {
                let prev = prev.as_ref().map(|prev| prev.value.as_ref());
                let fields = [b"delete".as_slice(), key].into_iter();
                out.text_only(&fields.chain(prev).collect::<Vec<_>>())?;
            }
        }
        out.json_only(|| happening.json(prev))?;
    }
    Ok(())
}

/// What a command is run for.
#[derive(Clone, Copy)]
enum Happening<'a> {
    Reset(&'a Snapshot),
    Change(&'a Event),
}

impl<'a> Happening<'a> {
    fn of(observed: &'a Observed) -> impl Iterator<Item = Self> {
        let (reset, changes) = match observed {
            Observed::Reset(all) => (Some(Self::Reset(all)), None),
            Observed::Changes(changes) => (None, Some(changes)),
        };
        let changes = changes.into_iter().flatten().map(Self::Change);
        reset.into_iter().chain(changes)
    }

    /// What it is, for people.
    fn name(self) -> String {
        match self {
            Self::Reset(all) => format!("reset at revision {}", all.revision),
            Self::Change(Event::Put { kv, .. }) => {
                format!("put of {} at revision {}", kv.key, kv.mod_revision)
            }
            Self::Change(Event::Delete { key, revision, .. }) => {
                format!("delete of {key} at revision {revision}")
            }
        }
    }

    /// `prev` tells whether what was there before was asked for.
    fn json(self, prev: bool) -> Json {
        let before = |prev: &Option<KeyValue>| prev.as_ref().map_or(Json::Null, key_value);
        let (mut json, before) = match self {
            Self::Reset(all) => {
                let kvs: Vec<_> = all.kvs.iter().map(key_value).collect();
                return json!({ "type": "reset", "revision": all.revision.0, "kvs": kvs });
            }
            Self::Change(Event::Put { kv, prev }) => {
                let mut json = key_value(kv);
                json["type"] = json!("put");
                (json, before(prev))
            }
            Self::Change(Event::Delete {
                key,
                revision,
                prev,
            }) => (
                json!({ "type": "delete", "key": bytes(key), "mod_revision": revision.0 }),
                before(prev),
            ),
        };
        if prev {
            json["prev"] = before;
        }
        json
    }

    /// The variables of a command. Those that do not apply are absent, even if quorate has them itself.
    fn variables(self) -> Vec<Variable> {
        let (event, revision, fields) = match self {
            Self::Reset(all) => ("reset", all.revision, [None; 3]),
            Self::Change(Event::Put { kv, prev }) => {
                let prev = prev.as_ref().map(|prev| prev.value.as_ref());
                let fields = [Some(kv.key.as_ref()), Some(kv.value.as_ref()), prev];
                ("put", kv.mod_revision, fields)
            }
            Self::Change(Event::Delete {
                key,
                revision,
                prev,
            }) => {
                let prev = prev.as_ref().map(|prev| prev.value.as_ref());
                ("delete", *revision, [Some(key.as_ref()), None, prev])
            }
        };
        let mut variables = vec![
            ("QUORATE_EVENT".to_owned(), Some(event.into())),
            (
                "QUORATE_REVISION".to_owned(),
                Some(revision.to_string().into()),
            ),
        ];
        for (name, field) in FIELDS.into_iter().zip(fields) {
            let (value, omitted) = match field {
                None => (None, None),
                Some(bytes) if bytes.contains(&0) => (None, Some("nul")),
                Some(bytes) if bytes.len() > LARGEST => (None, Some("large")),
                Some(bytes) => (Some(OsString::from_vec(bytes.to_vec())), None),
            };
            variables.push((name.to_owned(), value));
            variables.push((format!("{name}_OMITTED"), omitted.map(OsString::from)));
        }
        variables
    }
}

/// The variables that hold bytes of the store.
const FIELDS: [&str; 3] = ["QUORATE_KEY", "QUORATE_VALUE", "QUORATE_PREV_VALUE"];

/// The largest variable. Linux takes none of twice this size.
const LARGEST: usize = 64 * 1024;

/// The signals that end it; without commands they do so by themselves.
const ENDING: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];
