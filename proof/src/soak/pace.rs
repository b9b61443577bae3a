//! Lets the churn of a process go on, brings it to rest, and counts what it does.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    future::pending,
    time::Duration,
};

use quorate::Result;
use tokio::{sync::watch, time::sleep};

use crate::torture::worker::Desk;

/// Whether there is churn, and who is in the midst of it.
pub(crate) struct Pace {
    going: watch::Sender<bool>,
    busy: RefCell<BTreeSet<String>>,
    done: RefCell<BTreeMap<&'static str, u64>>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            going: watch::Sender::new(true),
            busy: RefCell::default(),
            done: RefCell::default(),
        }
    }

    /// Lets everybody go on, or come to rest.
    pub(crate) fn set(&self, going: bool) {
        self.going.send_replace(going);
    }

    pub(crate) fn is_going(&self) -> bool {
        *self.going.borrow()
    }

    /// Takes one step after the other while there is churn, each about this long after the last one.
    /// There is rest after a step that began when rest was asked for and succeeded, so that nothing is
    /// left half done.
    pub(crate) async fn churn(
        &self,
        desk: &Desk,
        recipe: &'static str,
        pause: Duration,
        mut step: impl AsyncFnMut() -> Result<()>,
    ) {
        let who = self.joins(recipe);
        loop {
            let is_last = !self.is_going();
            match step().await {
                Ok(()) => {
                    self.count(recipe);
                    if is_last {
                        self.rest(&who).await;
                    }
                    desk.rest(pause / 2, pause * 3 / 2).await;
                }
                Err(error) => desk.failed(recipe, &error).await,
            }
        }
    }

    /// Who has not come to rest.
    pub(crate) fn busy(&self) -> Vec<String> {
        self.busy.borrow().iter().cloned().collect()
    }

    pub(crate) fn count(&self, recipe: &'static str) {
        *self.done.borrow_mut().entry(recipe).or_default() += 1;
    }

    /// How often each recipe was used.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let done = self.done.borrow();
        done.iter()
            .map(|(recipe, count)| ((*recipe).to_owned(), *count))
            .collect()
    }

    /// Completes when some time has passed, and there is churn: so what is followed is followed at rest.
    pub(crate) async fn due(&self, after: Duration) {
        sleep(after).await;
        self.goes().await;
    }

    async fn goes(&self) {
        let mut going = self.going.subscribe();
        if going.wait_for(|going| *going).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Another one takes part.
    fn joins(&self, recipe: &str) -> String {
        let mut busy = self.busy.borrow_mut();
        let names = (0..).map(|number| format!("{recipe} {number}"));
        let who = { names }.find(|name| !busy.contains(name));
        let who = who.expect("there is always another number");
        busy.insert(who.clone());
        who
    }

    async fn rest(&self, who: &str) {
        self.busy.borrow_mut().remove(who);
        self.goes().await;
        self.busy.borrow_mut().insert(who.to_owned());
    }
}
