//! Looks at the health again and again.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{HealthCheck, HealthReport, Outline};
use crate::{Error, ErrorKind, Result};

/// Looks at the health of a cluster at an interval, and tells when it changes.
///
/// A task of its own looks, so the present report can be read at any time. The task keeps neither the
/// client nor its session; dropping the monitor ends it.
#[derive(Debug)]
#[must_use = "a monitor ends when it is dropped"]
pub struct HealthMonitor {
    report: watch::Receiver<Option<Arc<HealthReport>>>,
    /// What the reader was told last.
    told: Option<Outline>,
    _stop: DropGuard,
}

impl HealthCheck {
    /// Looks now, and again each time the [interval](HealthCheck::every) has passed since the last look
    /// ended, until the monitor is dropped.
    ///
    /// Call it where tokio runs.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use std::time::Duration;
    ///
    /// let client = quorate::Client::connect("mem:").await?;
    /// let mut monitor = client.health().every(Duration::from_secs(1)).monitor();
    /// let report = monitor.changed().await?; // at once, and then only when something has changed
    /// println!("{}", report.health);
    /// # Ok(())
    /// # }
    /// ```
    pub fn monitor(self) -> HealthMonitor {
        let (sender, report) = watch::channel(None);
        let stop = CancellationToken::new();
        let runtime = Arc::clone(self.link.runtime());
        let task = {
            let stop = stop.clone();
            let check = Self {
                link: self.link.detached(),
                ..self
            };
            async move {
                let look_on = look_for_ever(&check, &sender);
                stop.run_until_cancelled(look_on).await;
            }
        };
        runtime.spawn(Box::pin(task));
        HealthMonitor {
            report,
            told: None,
            _stop: stop.drop_guard(),
        }
    }
}

impl HealthMonitor {
    /// The newest report; `None` before the first look has ended. Its age is at most the interval and
    /// the client's timeout.
    pub fn current(&self) -> Option<Arc<HealthReport>> {
        self.report.borrow().clone()
    }

    /// Waits until the report tells something else than the last one that this returned, and returns
    /// it; at first it returns the first report. What comes and goes between two calls is skipped.
    ///
    /// Something else is another [`Health`](crate::Health), other reasons, members or another leader.
    /// Sizes, raft indexes and the words of errors change all the time and do not count.
    ///
    /// # Errors
    ///
    /// [`Closed`](ErrorKind::Closed) if the task has ended because tokio's runtime has.
    ///
    /// # Cancel safety
    ///
    /// No change is lost if the future is dropped.
    pub async fn changed(&mut self) -> Result<Arc<HealthReport>> {
        loop {
            if self.report.changed().await.is_err() {
                return Err(Error::new(
                    ErrorKind::Closed,
                    "the health monitor has ended with its runtime",
                ));
            }
            let report = self.report.borrow_and_update().clone();
            let Some(report) = report else { continue };
            let outline = report.outline();
            if self.told.as_ref() != Some(&outline) {
                self.told = Some(outline);
                return Ok(report);
            }
        }
    }
}

async fn look_for_ever(check: &HealthCheck, sender: &watch::Sender<Option<Arc<HealthReport>>>) {
    let runtime = check.link.runtime();
    loop {
        let report = check.check().await;
        sender.send_replace(Some(Arc::new(report)));
        runtime.sleep_until(runtime.now() + check.interval).await;
    }
}
